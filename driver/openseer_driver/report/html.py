"""Makes the page of a run: metrics, charts and tables in one self-contained file, with a light and a dark theme."""

from dataclasses import dataclass
from datetime import UTC, datetime

from jinja2 import Environment, PackageLoader, StrictUndefined

from openseer_core.worker.context_metrics import ContextCounts
from openseer_driver.report import charts, charts_drafting, charts_lengths
from openseer_driver.report.contexts import contexts_text
from openseer_driver.report.drafting import DraftReport, draft_points
from openseer_driver.report.pace import duration
from openseer_driver.report.report import Report, estimate_points, make_report
from openseer_driver.report.trace import Trace, read_trace
from openseer_driver.run_folder import RunFolder

TEMPLATE = "report.html.j2"


@dataclass(frozen=True, slots=True)
class Section:
    """One chart with its text; `empty`: the text in place of an empty `chart`."""

    title: str
    text: str
    chart: str = ""
    empty: str = ""


@dataclass(frozen=True, slots=True)
class Headline:
    """One headline metric of the page."""

    label: str
    value: str
    unit: str
    note: str


def write_report(folder: RunFolder) -> Report:
    """Measures a run and writes report.json and report.html. Raises InputError or OutputError."""
    trace = read_trace(folder)
    report = make_report(trace)
    folder.write_whole(folder.report_file, report.to_json())
    folder.write_whole(folder.report_page, page(trace, report).encode())
    return report


def page(trace: Trace, report: Report) -> str:
    """The text of report.html."""
    environment = Environment(
        loader=PackageLoader("openseer_driver"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        report=report,
        headlines=_headlines(report),
        sections=_sections(trace, report) if trace.facts else [],
        facts=_facts(trace, report),
        percent=_percent,
        duration=duration,
    )


def _headlines(report: Report) -> list[Headline]:
    ok, total = report.requests_ok, report.requests_total
    return [
        Headline("Makespan", *_seconds(report.makespan_seconds), report.makespan_is),
        Headline("Tail", *_seconds(report.tail_seconds), f"{_percent(report.tail_share)} of it on the last 10 %"),
        Headline("Throughput", f"{report.tokens_per_second:,.0f}", "tok/s", f"{report.tokens_total:,} tokens"),
        Headline("Responses", f"{ok:,}", "ok", f"of {total:,} results in {report.groups:,} groups"),
        Headline("Idle", f"{100 * report.idle_share:.1f}", "%", "of the workers' time, without any request"),
        Headline(
            "Requeues", f"{report.requeues:,}", "", f"{report.reaps:,} of them lost leases; {report.moves:,} moves"
        ),
    ]


def _sections(trace: Trace, report: Report) -> list[Section]:
    tail = "The shaded part is the tail."
    ran = any(fact.chunks for fact in trace.facts)
    slots = " The dotted line is the worker's number of slots." if any(w.slots for w in report.workers.values()) else ""
    return [
        Section(
            "Requests done",
            f"Finished requests over time. A flat end is a long tail. {tail}",
            charts.completion(trace, report),
        ),
        Section(
            "Chunks by worker",
            "Every chunk as a bar, in a band per worker: a request that is given back keeps its tokens and continues "
            "in another bar, on this or another worker.",
            charts.timeline(trace) if ran else "",
            "No worker ran a request.",
        ),
        Section(
            "In flight",
            f"Requests of each worker. A row that ends early belongs to a worker that had no further requests.{slots} "
            f"{tail}",
            charts.inflight(trace, report) if ran else "",
            "No worker held a request.",
        ),
        Section(
            "Queue and KV cache",
            "Requests waiting and running, and the used part of the caches; the reserved part includes the tokens "
            "that the running chunks may still generate.",
            charts.queue_and_cache(trace) if trace.samples else "",
            "The run left no samples.",
        ),
        Section(
            "Lengths by group",
            f"One column of dots per group: {_percent(report.lengths.between_share)} of the variance of the lengths "
            "lies between groups: the part that one finished response can predict for its siblings.",
            charts_lengths.lengths_by_group(trace) if report.requests_ok else "",
            "No response is complete.",
        ),
        _estimate_section(trace, report),
        *(_draft_sections(trace, report.drafting) if report.drafting is not None else ()),
        Section(
            "Requeues and preemptions",
            "Number of requests that returned to the queue, given back or after the loss of their worker, and of "
            f"preemptions by engines. {_contexts(report.contexts)}",
            charts.requeues(trace) if report.requeues or report.preemptions else "",
            "None: every request ran to its end on its first worker.",
        ),
    ]


def _contexts(contexts: ContextCounts) -> str:
    text = contexts_text(contexts)
    return f"Of the tokens of context that engines took up, {text}." if text else ""


def _estimate_section(trace: Trace, report: Report) -> Section:
    points, error = estimate_points(trace), report.estimates
    text = (
        "The estimate of each request at its first claim (without probes), from the siblings finished by "
        f"then: off by {error.mean_absolute_error:,.0f} tokens on average, {_percent(error.within_a_quarter)} within "
        "a quarter of the actual length."
        if error.informed
        else "The estimate of each request at its first claim, without probes."
    )
    chart = charts_lengths.estimates(points) if points else ""
    return Section("Estimated and actual lengths", text, chart, "All requests are probes.")


def _draft_sections(trace: Trace, drafting: DraftReport) -> list[Section]:
    full = f" Memory was short: {drafting.full:,} times a request continued without drafts." if drafting.full else ""
    return [
        Section(
            "Acceptance length",
            "Tokens that a request gained in a step of the engine, its own one included, by the number of siblings to "
            f"draft from: {drafting.acceptance_length:.2f} on average, so that {_percent(drafting.draft_share)} of "
            "all tokens were drafted.",
            charts_drafting.acceptance_lengths(drafting),
        ),
        Section(
            "Drafts by origin",
            f"{drafting.accepted_tokens:,} of {drafting.drafted_tokens:,} drafted tokens were accepted "
            f"({_percent(drafting.acceptance)}); {drafting.wasted_tokens:,} were verified and rejected. Workers read "
            f"{drafting.shared_tokens:,} tokens of siblings on other workers.{full}",
            charts_drafting.origins(drafting),
        ),
        Section(
            "Draft lengths over time",
            f"Tokens drafted for a request in a step, {drafting.draft_length:.2f} on average, and the time that "
            f"drafting took: {1000 * drafting.seconds_per_step:.2f} ms of a step, {drafting.seconds:.1f} s in all. The "
            "shaded part is the tail.",
            charts_drafting.over_time(trace, draft_points(trace.samples)),
        ),
    ]


def _facts(trace: Trace, report: Report) -> list[tuple[str, str]]:
    lengths = report.lengths
    facts = [
        ("State", report.state + (f": {report.reason}" if report.reason else "")),
        ("Policy", report.policy),
        ("Started", _moment(report.started_at)),
        ("Last finish", _moment(report.ended_at)),
        ("Sessions", f"{report.sessions}" + _pauses(report)),
        ("Results", _counted(report.by_status)),
        ("Finish reasons", _counted(report.by_finish_reason)),
        ("Failures", report.failures.text.replace("\n", ";")),
        (
            "Lengths",
            f"mean {lengths.mean:,.0f}, median {lengths.median:,.0f}, 90 % {lengths.p90:,}, 99 % {lengths.p99:,}, "
            f"longest {lengths.max:,} tokens",
        ),
        ("Chunks per request", f"mean {report.chunks_per_request.mean:.2f}, most {report.chunks_per_request.max}"),
        ("Drafts", report.drafts),
        ("openseer", report.openseer),
        ("Manifest", trace.record.manifest_hash),
    ]
    return [fact for fact in facts if fact[1]]


def _pauses(report: Report) -> str:
    return f", {duration(report.pause_seconds)} between them" if report.pause_seconds else ""


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(counts.items()))


def _seconds(value: float) -> tuple[str, str]:
    return (f"{value:.1f}", "s") if value < 120 else (duration(value), "min" if value < 3600 else "h")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def _moment(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if time else ""
