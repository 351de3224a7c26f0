"""Search by meaning: python examples/search.py QUESTION"""

from __future__ import annotations

import base64
import sys
from array import array
from operator import mul

from celery_mlx import embed

MODEL = "all-minilm-l6-v2"
DOCUMENTS = [
    "result.revoke(terminate=True) cancels a request that runs, and frees its place in the batch.",
    "A worker that is killed loses nothing: another one goes on after the last token.",
    "Priorities are 0, the most urgent, 5, and 9 for batch work.",
    "Each model has an engine, a process of its own.",
    "Bananas are rich in potassium.",
]
question = sys.argv[1] if len(sys.argv) > 1 else "how do I stop a request?"

# One request for all texts: its engine sorts them by length and batches them. base64 is a quarter of the size of numbers.
answer = embed.delay(input=[question, *DOCUMENTS], model=MODEL, encoding_format="base64").get()
vectors = [array("f", base64.b64decode(item["embedding"])) for item in answer["data"]]

# These vectors have the length 1, so that their product is the cosine of their angle.
asked, *known = vectors
ranked = sorted(zip([sum(map(mul, asked, vector)) for vector in known], DOCUMENTS, strict=True), reverse=True)
for similarity, document in ranked:
    print(f"{similarity:.3f}  {document}")
print(f"{answer['usage']['total_tokens']} tokens, {len(asked)} dimensions, by {answer['worker']}")
