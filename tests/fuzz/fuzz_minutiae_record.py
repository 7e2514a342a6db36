"""Minutiae records and stored fingerprint payloads: any bytes, only the declared error."""

from __future__ import annotations

from edge_agent.matching import minutiae_record
from edge_agent.matching.record_values import BadRecord
from templates_store.errors import BadTemplate
from templates_store.gallery.finger_template import MinutiaeTemplate


def one_input(data: bytes) -> None:
    try:
        record = minutiae_record.decode(data)
    except BadRecord:
        pass
    else:
        if minutiae_record.decode(minutiae_record.encode(record)) != record:
            raise AssertionError("a record changed on its way through the codec")
        for view in record.views:
            try:
                minutiae_record.template_of(view, record.format)
            except BadTemplate:
                continue
    try:
        template = MinutiaeTemplate.decode(data)
    except BadTemplate:
        return
    if template.encode() != data:
        raise AssertionError("a stored payload changed on its way through the codec")
