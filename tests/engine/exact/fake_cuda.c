/* A driver and an NVRTC that are none: what they are asked is checked, and kernels run on the emulator.
   A "cubin" is what there is to compile, behind its options; a module is the path of an emulator's library. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- The driver ---- */
struct function { void (*emulate)(int, const void *, unsigned, unsigned); int number; };
static char context[1];
static int entered;
uint64_t fake_launches, fake_stream;

int cuInit(unsigned flags) { return flags != 0; }
int cuDeviceGet(int *device, int number) { *device = 40 + number; return number > 1 ? 101 : 0; }
int cuDevicePrimaryCtxRetain(void **made, int device) { *made = context; return device < 40; }
int cuCtxSetCurrent(void *given) { entered = given == (void *)context; return !entered; }
int cuGetErrorString(int fault, const char **text) { *text = fault == 101 ? "invalid device ordinal" : "fault"; return 0; }

int cuModuleLoadData(void **module, const void *image)
{
    *module = dlopen((const char *)image, RTLD_NOW);
    return entered && *module ? 0 : 200;
}

int cuModuleGetFunction(void **made, void *module, const char *name)
{
    const char *const *names = dlsym(module, "tl_names");
    struct function *function = malloc(sizeof *function);
    function->emulate = (void (*)(int, const void *, unsigned, unsigned))dlsym(module, "tl_emulate");
    for (function->number = 0; names[function->number]; function->number++)
        if (!strcmp(names[function->number], name)) {
            *made = function;
            return 0;
        }
    return 500;
}

int cuLaunchKernel(void *given, unsigned blocks, unsigned y, unsigned z, unsigned threads, unsigned wide, unsigned deep,
                   unsigned shared, void *stream, void **arguments, void **extra)
{
    struct function *function = given;
    if (y != 1 || z != 1 || wide != 1 || deep != 1 || shared || extra || !entered) return 1;
    fake_launches++;
    fake_stream = (uint64_t)stream;
    function->emulate(function->number, arguments[0], blocks, threads);
    return 0;
}

/* ---- NVRTC ---- */
struct program { char *text; const char *log; };

const char *nvrtcGetErrorString(int fault) { return fault == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR"; }
int nvrtcVersion(int *major, int *minor) { *major = 12, *minor = 8; return 0; }
int nvrtcGetNumSupportedArchs(int *count) { *count = 3; return 0; }
int nvrtcGetSupportedArchs(int *list) { list[0] = 75, list[1] = 80, list[2] = 90; return 0; }

int nvrtcCreateProgram(struct program **made, const char *text, const char *name, int headers, void *a, void *b)
{
    (void)name, (void)headers, (void)a, (void)b;
    *made = calloc(1, sizeof **made);
    (*made)->text = strdup(text);
    (*made)->log = "";
    return 0;
}

int nvrtcCompileProgram(struct program *program, int count, const char *const *options)
{
    char *whole = calloc(1, strlen(program->text) + 4096);
    if (strstr(program->text, "SLOW")) sleep(60);
    if (strstr(program->text, "CRASH")) abort();
    if (strstr(program->text, "WRONG")) {
        program->log = "program.cu(1): error: WRONG is undefined";
        return 6;
    }
    for (int n = 0; n < count; n++) strcat(strcat(whole, options[n]), " ");
    program->text = strcat(whole, program->text);
    return 0;
}

int nvrtcGetProgramLogSize(struct program *program, size_t *size) { *size = strlen(program->log) + 1; return 0; }
int nvrtcGetProgramLog(struct program *program, char *log) { strcpy(log, program->log); return 0; }
int nvrtcGetCUBINSize(struct program *program, size_t *size) { *size = strlen(program->text); return 0; }
int nvrtcGetCUBIN(struct program *program, char *data) { memcpy(data, program->text, strlen(program->text)); return 0; }
int nvrtcGetPTXSize(struct program *program, size_t *size) { *size = strlen(program->text) + 1; return 0; }
int nvrtcGetPTX(struct program *program, char *data) { strcpy(data, program->text); return 0; }
