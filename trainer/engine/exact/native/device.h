/* What words.h rests on, for NVRTC and an NVIDIA GPU. Every CUDA unit begins with this file.
   Each float operation says its rounding, so that no option of the compiler and no contraction can change one. */
#if defined(__CUDACC_RTC__)
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define ptrdiff_t int64_t /* NVRTC has a name of its own for that */
#endif

#define INLINE static __device__ __forceinline__
#define restrict __restrict__

typedef uint32_t tl_index;

INLINE uint32_t bits_of(float x) { return __float_as_uint(x); }
INLINE float float_of(uint32_t word) { return __uint_as_float(word); }

/* The nearest integer, ties to even, of what fits. */
INLINE int32_t rounded(float x) { return __float2int_rn(x); }

/* The nearest float of an integer. */
INLINE float float_of_integer(int64_t n) { return __ll2float_rn(n); }

INLINE float multiplied(float a, float b) { return __fmul_rn(a, b); }

/* What a launch gives its kernel: the output's address (of a group, all outputs'), each operand's first element, the
   scratch; and a number. */
struct tl_given {
    char *at[40];
    uint64_t first;
};

/* The number of this thread in its launch, and how many there are. */
INLINE uint32_t tl_thread(void) { return blockIdx.x * blockDim.x + threadIdx.x; }
INLINE uint32_t tl_threads(void) { return gridDim.x * blockDim.x; }
