import { useState } from "react";

import { duration } from "./format";
import { Sparkline, type Tone } from "./Sparkline";

export type Format = (value: number | null) => string;

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
    return write?.(value ?? null) ?? "";
  };
  const shown = (now[0] ?? 0) > 0 ? tone : "plain";
  return (
    <div className={`figure tone-${shown}${isLive ? "" : " is-old"}`}>
      <dt>
        {label}
        <span className="figure-note">{at === undefined || latest === undefined ? note : `${duration((latest - at) * 1000)} ago`}</span>
      </dt>
      <dd>
        <span className="figure-value">{show(0)}</span> <span className="figure-unit">{unit}</span>
        {now.length > 1 && <span className="figure-second">{show(1)}</span>}
      </dd>
      <dd className="figure-chart" aria-hidden="true">
        <Sparkline times={times} lines={lines} tone={shown} top={top} onHover={setHovered} />
      </dd>
    </div>
  );
}
