"""Data sets: what they must contain and how they are read."""

from ecgdiff.data.manifests import Manifest, Split, load_manifest, manifest_names

__all__ = ["Manifest", "Split", "load_manifest", "manifest_names"]
