"""Content-addressed blobs over fsspec."""

from trainer.store.blobs import BlobStore

__all__ = ["BlobStore"]
