from __future__ import annotations

from edge_agent.matching.face_dlib import DlibResnet
from edge_agent.matching.face_sface import Sface
from edge_agent.matching.pipelines import METRICS


def test_the_metrics_are_those_of_the_engines() -> None:
    assert {kind.format.pipeline: kind.metric for kind in (Sface, DlibResnet)} == METRICS
