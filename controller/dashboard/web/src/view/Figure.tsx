import { useState } from "react";

import { duration, NONE } from "./format";
import { Sparkline, type Tone } from "./Sparkline";

type Format = (value: number) => string;

interface FigureProps {
  label: string;
  unit: string;
  note?: string;
  tone?: Tone;
  /** Top of the chart's scale where it is known, such as 1 for a share. */
  top?: number;
  times: readonly number[];
  lines: readonly (readonly (number | null)[])[];
  now: readonly (number | null)[];
  format: readonly Format[];
  hoverFormat?: Format;
  isLive: boolean;
}

/** One figure with its chart. While the pointer is on a chart, all figures show that moment. */
export function Figure({ label, unit, note, tone = "plain", top, times, lines, now, format, hoverFormat, isLive }: FigureProps) {
  const [hovered, setHovered] = useState<number | null>(null);
  const latest = times.at(-1);
  const at = hovered !== null && latest !== undefined ? times[hovered] : undefined;
  const show = (index: number): string => {
    const value = at === undefined ? now[index] : lines[index]?.[hovered ?? -1];
    const write = at === undefined ? format[index] : (hoverFormat ?? format[index]);
    return value === null || value === undefined || !write ? NONE : write(value);
  };
  const alarming = tone !== "plain" && (now[0] ?? 0) > 0;
  return (
    <div className={`figure tone-${alarming ? tone : "plain"}${isLive ? "" : " is-old"}`}>
      <dt>
        {label}
        <span className="figure-note">{at === undefined || latest === undefined ? note : `${duration((latest - at) * 1000)} ago`}</span>
      </dt>
      <dd>
        <span className="figure-value">{show(0)}</span> <span className="figure-unit">{unit}</span>
        {now.length > 1 && <span className="figure-second">{show(1)}</span>}
      </dd>
      <dd className="figure-chart" aria-hidden="true">
        <Sparkline times={times} lines={lines} tone={tone} top={top} onHover={setHovered} />
      </dd>
    </div>
  );
}
