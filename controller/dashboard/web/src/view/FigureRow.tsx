import { type Figures, figures, type Sample } from "../state/figures";
import type { Router } from "../state/messages";
import { Figure, type Format } from "./Figure";
import { count, milliseconds, NONE, percent, rate } from "./format";

const orNone = (write: (value: number) => string): Format => (value) => (value === null ? NONE : write(value));
const perSecond = orNone((value) => `+${count(value)}`);
const rateOrNone = orNone(rate);
const countOrNone = orNone(count);

type Read = (known: Figures) => number | null;

/** Errors and migrations are counters; their charts show how many came in each second. */
function increases(history: readonly Sample[], read: (known: Figures) => number): (number | null)[] {
  return history.map((sample, index) => {
    const before = history[index - 1]?.figures;
    // A router that restarts or leaves takes its counters with it: that is no negative number of errors.
    return sample.figures && before ? Math.max(0, read(sample.figures) - read(before)) : null;
  });
}

interface FigureRowProps {
  routers: readonly Router[];
  history: readonly Sample[];
  isLive: boolean;
}

export function FigureRow({ routers, history, isLive }: FigureRowProps) {
  const now = figures(routers);
  const times = history.map((sample) => sample.time);
  const line = (read: Read) => history.map((sample) => (sample.figures ? read(sample.figures) : null));
  const ttft = [line((known) => known.ttftP50Ms), line((known) => known.ttftP99Ms)];
  const tpot = [line((known) => known.tpotP50Ms), line((known) => known.tpotP99Ms)];
  const note = routers.length > 1 ? "slowest router" : "";
  const shared = { times, isLive };
  const p99 = (value: number | null) => `p99 ${milliseconds(value)}`;
  return (
    <section aria-labelledby="requests-title">
      <h2 id="requests-title" className="section-title">
        Requests <span className="section-note">over the last ten seconds; charts show five minutes</span>
      </h2>
      {routers.length === 0 && <p className="hint">No router has reported yet, so there are no request figures.</p>}
      <dl className="figures">
        <Figure {...shared} label="Finished" unit="req/s" lines={[line((known) => known.requestsPerSecond)]}
          now={[now.requestsPerSecond]} format={[rateOrNone]} />
        <Figure {...shared} label="Output" unit="tok/s" lines={[line((known) => known.outputTokensPerSecond)]}
          now={[now.outputTokensPerSecond]} format={[rateOrNone]} />
        <Figure {...shared} label="Time to first token" unit="p50" note={note} lines={ttft}
          now={[now.ttftP50Ms, now.ttftP99Ms]} format={[milliseconds, p99]} />
        <Figure {...shared} label="Time per output token" unit="p50" note={note} lines={tpot}
          now={[now.tpotP50Ms, now.tpotP99Ms]} format={[milliseconds, p99]} />
        <Figure {...shared} label="In flight" unit="requests" lines={[line((known) => known.running)]}
          now={[now.running]} format={[countOrNone]} />
        <Figure {...shared} label="Prefix hits" unit="of prompt tokens" top={1} lines={[line((known) => known.prefixHitRatio)]}
          now={[now.prefixHitRatio]} format={[percent]} />
        <Figure {...shared} label="Errors" unit="since start" tone="bad" lines={[increases(history, (known) => known.errors)]}
          now={[now.errors]} format={[countOrNone]} hoverFormat={perSecond} />
        <Figure {...shared} label="Migrations" unit="since start" tone="warn"
          lines={[increases(history, (known) => known.migrations)]}
          now={[now.migrations]} format={[countOrNone]} hoverFormat={perSecond} />
      </dl>
    </section>
  );
}
