"""How many queries a second does a library answer, exactly and approximately, and how does faiss or plain torch?"""

from collections.abc import Callable

import torch
from torch import Tensor

import probcl as pcl
from applications.tables import Row
from benchmarks.measure import Measured, products, side_by_side
from benchmarks.report import parser, prepare, publish

K, TEMPERATURE, CLUSTERS, SPREAD = 10, 0.07, 1000, 0.5
NOTE = (
    f"Top-{K}, or one draw for each query from the softmax at τ = {TEMPERATURE}, of items in {CLUSTERS:,} clusters; "
    "inner product, single precision, medians of interleaved repeats. floor: the matrix product of queries and items, "
    "tile by tile. against: this time over ours. memory: what a call adds at its peak, without the items."
)


def main() -> None:
    command = parser(__doc__, "benchmarks.retrieval")
    command.add_argument("--items", type=int, default=100_000)
    command.add_argument("--queries", type=int, default=1024)
    command.add_argument("--width", type=int, default=64)
    command.add_argument("--no-faiss", action="store_true", help="leave faiss out")
    command.add_argument("--no-approximate", action="store_true", help="leave approximate search out")
    arguments = command.parse_args()
    device = prepare(arguments)
    items, queries = _clustered(arguments.items, arguments.queries, arguments.width)
    items, queries = items.to(device), queries.to(device)
    model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), temperature=TEMPERATURE)
    library = pcl.retrieval.Library(model, u=items)
    calls: dict[str, Callable[[], object]] = {
        "floor": products(queries, items, count=1),
        "top-k: probcl": lambda: library.topk(queries, K),
        "top-k: torch, matmul and topk": lambda: (queries @ items.mT).topk(K, 1),
        "draws: probcl": lambda: library.sample(queries),
        "draws: torch, softmax and multinomial": lambda: _multinomial(queries, items),
        "log-normaliser: probcl": lambda: library.log_normalizer(queries),
    }
    recall = {}
    if not arguments.no_faiss:
        calls["top-k: faiss, flat"] = _faiss_flat(items, queries, torch.get_num_threads())
    if not (arguments.no_faiss or arguments.no_approximate):
        for kind in ("ivf", "hnsw"):
            index = library.index(kind)
            name = f"top-k: probcl, index({kind!r})"
            calls[name] = lambda index=index: index.topk(queries, K)  # type: ignore[misc]
            recall[name] = f"{index.recall_at_k(queries, K):.4f}"
    measured = side_by_side(calls, arguments.repeats, device)
    title = f"{arguments.items:,} items of width {arguments.width}, {arguments.queries:,} queries"
    publish(title, _rows(measured, recall, len(queries)), f"retrieval-{arguments.items}", device, NOTE)


def _rows(measured: dict[str, Measured], recall: dict[str, str], queries: int) -> list[Row]:
    ours = {task: measured[f"{task}: probcl"].seconds for task in ("top-k", "draws")}
    return [
        {
            "call": name,
            "queries/s": f"{queries / found.seconds:,.0f}",
            "against": f"{found.seconds / ours[name.split(':')[0]]:.2f}" if name.split(":")[0] in ours else "",
            "memory, MB": f"{found.memory / 1e6:.0f}",
            "recall": recall.get(name, ""),
        }
        for name, found in measured.items()
    ]


def _clustered(items: int, queries: int, width: int) -> tuple[Tensor, Tensor]:
    """Return items and queries around the same centres, of norm about one."""
    centres = torch.randn(CLUSTERS, width)

    def draw(count: int) -> Tensor:
        points = centres[torch.randint(CLUSTERS, (count,))] + SPREAD * torch.randn(count, width)
        return points / width**0.5

    return draw(items), draw(queries)


def _multinomial(queries: Tensor, items: Tensor) -> Tensor:
    return torch.multinomial((queries @ items.mT / TEMPERATURE).softmax(1), 1)


def _faiss_flat(items: Tensor, queries: Tensor, threads: int) -> Callable[[], object]:
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items.cpu().numpy())
    return lambda: index.search(queries.cpu().numpy(), K)


if __name__ == "__main__":
    main()
