"""What may become a template row at all, checked before anything is written."""

from __future__ import annotations

import re

import numpy as np

from templates_store.errors import BadTemplate
from templates_store.template import Template, TemplateFormat

MAX_PAYLOAD = 64 * 1024
MAX_DIMENSION = 4096
MAX_POSITION = 65535
MAX_TEMPLATES = 64  # of one enrolment
_ID = re.compile(r"[^\s\x00-\x1f\x7f]{1,128}")
_PART = r"[a-z0-9][a-z0-9._-]*"
_PIPELINE = re.compile(rf"(device:{_PART}|{_PART}(\+{_PART})*/[0-9]{{1,4}})", re.ASCII)


def check_id(text: str, what: str) -> None:
    """Raises BadTemplate unless 1 to 128 characters without spaces and control characters."""
    if not _ID.fullmatch(text) or len(text.encode()) > 256:
        raise BadTemplate(f"{what} must be 1 to 128 characters without spaces")


def check_format(found: TemplateFormat) -> None:
    if len(found.pipeline) > 128 or not _PIPELINE.fullmatch(found.pipeline):
        raise BadTemplate("unknown template format: a pipeline is named like 'detector+model/1' or 'device:name'")
    if not 0 <= found.dimension <= MAX_DIMENSION:
        raise BadTemplate(f"a vector has 1 to {MAX_DIMENSION} dimensions, or 0 if the payload is none")


def check(template: Template) -> None:
    """Raises BadTemplate; its message never shows the payload."""
    check_id(template.subject_id, "subject id")
    check_id(template.template_id, "template id")
    check_format(template.format)
    if not 0 <= template.position <= MAX_POSITION:
        raise BadTemplate(f"position must be 0 to {MAX_POSITION}")
    if not 1 <= len(template.payload) <= MAX_PAYLOAD:
        raise BadTemplate(f"a payload has 1 to {MAX_PAYLOAD} bytes")
    if template.format.dimension:
        _check_vector(template.payload, template.format.dimension)


def _check_vector(payload: bytes, dimension: int) -> None:
    if len(payload) != 4 * dimension:
        raise BadTemplate(f"a vector of {dimension} dimensions has {4 * dimension} bytes, not {len(payload)}")
    vector = np.frombuffer(payload, "<f4")
    if not np.isfinite(vector).all():
        raise BadTemplate("a vector with NaN or infinity")
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not 1e-12 < length < 1e18:  # a length whose square float32 cannot hold compares as nonsense
        raise BadTemplate("a vector without length")
