"""The wire model of `GET /drift`, for its documentation and for who draws it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

DriftVerdict = Literal["as proven", "has moved", "far"]
DriftSubject = Literal["text_queries", "image_queries", "gallery_images", "gallery_texts"]


class DriftMeasure(BaseModel):
    """One number beside what it was when the encoder was proven.

    `verdict` is null where there is nothing to compare with, or too few queries to tell; `why` says in plain
    language what was found, or why nothing can be said.
    """

    name: Literal[
        "mean", "spread", "unfamiliar", "relevance", "nothing_matches", "cut_texts", "undecodable_images"
    ]
    value: float | None = Field(None, description="what is seen now")
    reference: float | None = Field(None, description="what was seen when the encoder was proven")
    standard_errors: float | None = Field(
        None, description="the difference, in standard errors of a sample of this size"
    )
    moved_at: float | None = Field(None, description="values from here on (or down to here) have moved")
    far_at: float | None = None
    verdict: DriftVerdict | None = None
    why: str = Field(description="the verdict in plain language")


class DriftReport(BaseModel):
    """Queries of one kind in the window, or one side of the gallery; the verdict is its worst measure's."""

    subject: DriftSubject
    seen: int = Field(description="queries in the window, or gallery vectors that were looked at")
    reference: str | None = Field(None, description="what it is compared with; null: nothing to compare with")
    verdict: DriftVerdict | None = None
    why: str
    measures: list[DriftMeasure]
    relevance_histogram: list[int] | None = Field(
        None, description="queries by relevance of their best hit, ten bins from 0 to 1; null for galleries"
    )


class DriftAnswer(BaseModel):
    """Answer of `GET /drift`."""

    model_config = ConfigDict(protected_namespaces=())
    release: str
    model_fingerprint: str
    verdict: DriftVerdict | None = Field(None, description="the worst of the reports")
    window_queries: int = Field(description="how many queries of a kind the window holds at most")
    least_queries: int = Field(description="fewer say nothing")
    reports: list[DriftReport] = Field(
        description="text_queries, image_queries, gallery_images, gallery_texts, in this order"
    )
    privacy: str = Field(description="what is kept of queries: sums, never a query")
