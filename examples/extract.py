"""Documents as data, with a pydantic model, on idle slots: python examples/extract.py 4"""

from __future__ import annotations

import sys

from celery import group
from pydantic import BaseModel, Field

from celery_mlx import generate


class Invoice(BaseModel):
    """What is looked for in each document."""

    customer: str = Field(max_length=24)
    total: int = Field(ge=0, le=100_000)
    paid: bool


count = int(sys.argv[1]) if len(sys.argv) > 1 else 8
documents = [f"Invoice {n}. Sold to: Customer {n}. Total: {n * 100 + 50} EUR. Paid in full." for n in range(count)]


def ask(document: str) -> list[dict[str, str]]:
    """The conversation about one document."""
    return [{"role": "user", "content": f"Customer, total and whether it is paid, as JSON:\n{document}"}]


# One request for each document; a group is sent whole, or not at all. generate.bulk takes more than a queue has room for.
requests = (
    generate.s(messages=ask(document), response_format=Invoice, temperature=0, max_tokens=96) for document in documents
)
answers = group(requests).apply_async(priority=9).get()
found = 0
for document, answer in zip(documents, answers, strict=True):
    if answer["parsed"] is None:  # max_tokens came before the end: ask again, with more of them
        print(f"cut off: {document}")
        continue
    invoice = Invoice.model_validate(answer["parsed"])
    found += 1
    print(f"{invoice.customer}: {invoice.total}, {'paid' if invoice.paid else 'open'}")
print(f"{found} of {count} documents are data")
