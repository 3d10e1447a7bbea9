import { useEffect, useRef } from "react";
import uPlot from "uplot";

import { HISTORY_SECONDS } from "../state/figures";

export type Tone = "plain" | "warn" | "bad";

const HEIGHT = 44;
// The second line (p99) is fainter and has no area below it.
const COLOURS: Record<Tone, readonly string[]> = {
  plain: ["--chart", "--chart-second"],
  warn: ["--warn", "--warn"],
  bad: ["--bad", "--bad"],
};

function colour(plot: uPlot, name: string): string {
  return getComputedStyle(plot.root).getPropertyValue(name);
}

function options(width: number, count: number, tone: Tone, top: number | undefined, onHover: (at: number | null) => void): uPlot.Options {
  return {
    width,
    height: HEIGHT,
    padding: [4, 2, 2, 2],
    legend: { show: false },
    select: { show: false, left: 0, top: 0, width: 0, height: 0 },
    cursor: { y: false, drag: { x: false, y: false }, sync: { key: "figures" }, points: { size: 5 } },
    axes: [{ show: false }, { show: false }],
    scales: {
      x: { time: false, range: (_plot, _min, max) => [max - HISTORY_SECONDS, max] },
      y: { range: (_plot, _min, max) => [0, top ?? Math.max(max * 1.08, 1e-6)] },
    },
    series: [
      {},
      ...Array.from({ length: count }, (_, index): uPlot.Series => {
        const name = COLOURS[tone][index] ?? "--chart";
        const series: uPlot.Series = { stroke: (plot) => colour(plot, name), width: 1.5, points: { show: false } };
        return index === 0 ? { ...series, fill: (plot) => `${colour(plot, name)}1f` } : series;
      }),
    ],
    hooks: { setCursor: [(plot) => onHover(plot.cursor.idx ?? null)] },
  };
}

interface SparklineProps {
  times: readonly number[];
  lines: readonly (readonly (number | null)[])[];
  tone: Tone;
  top: number | undefined;
  onHover: (index: number | null) => void;
}

/** The last minutes as a small chart; times in seconds, null draws a gap. */
export function Sparkline({ times, lines, tone, top, onHover }: SparklineProps) {
  const holder = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const count = lines.length;

  useEffect(() => {
    const element = holder.current;
    if (!element) return;
    const empty: uPlot.AlignedData = [[], ...Array.from({ length: count }, () => [])];
    const plot = new uPlot(options(element.clientWidth, count, tone, top, onHover), empty, element);
    chart.current = plot;
    const resize = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT }));
    resize.observe(element);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const redraw = () => plot.redraw(false);
    scheme.addEventListener("change", redraw);
    return () => {
      scheme.removeEventListener("change", redraw);
      resize.disconnect();
      plot.destroy();
      chart.current = null;
    };
  }, [count, tone, top, onHover]);

  useEffect(() => {
    chart.current?.setData([[...times], ...lines.map((line) => [...line])]);
  });

  return <div className="sparkline" ref={holder} />;
}
