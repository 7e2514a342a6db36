"""Which score belongs to which vector pipeline, known without loading the engine.

A gallery searched by another metric than its pipeline's answers with scores its thresholds say nothing
about, and would let anybody in.
"""

from __future__ import annotations

from templates_store.gallery.vectors_basis import Metric

METRICS = {
    "yunet-2023mar+sface-2021dec/1": Metric.COSINE,
    "dlib-5-point+resnet-v1/1": Metric.EUCLIDEAN,
}
