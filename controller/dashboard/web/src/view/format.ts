// Numbers as operators read them. Widths stay steady so that live figures do not jump.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const NONE = "–";

export function count(value: number): string {
  return whole.format(value);
}

/** Three significant digits with k, M: 0.42, 7.5, 12.3k. */
export function rate(value: number): string {
  if (value >= 999_500) return `${digits(value / 1e6)}M`;
  if (value >= 9_995) return `${digits(value / 1e3)}k`;
  return value >= 1000 ? whole.format(value) : digits(value);
}

function digits(value: number): string {
  if (value === 0) return "0";
  if (value >= 99.95) return value.toFixed(0);
  return value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}

export function milliseconds(value: number | null): string {
  if (!value) return NONE;
  return value >= 9_995 ? `${digits(value / 1000)} s` : `${rate(value)} ms`;
}

export function percent(share: number | null): string {
  if (share === null) return NONE;
  return `${(share * 100).toFixed(share < 0.0995 && share > 0 ? 1 : 0)}%`;
}

/** 0.4 s, 12 s, 3 min, 2 h. */
export function duration(milliseconds: number): string {
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 60) return `${seconds.toFixed(0)} s`;
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export function clockTime(milliseconds: number): string {
  return clock.format(milliseconds);
}

export function plural(value: number, singular: string): string {
  return `${count(value)} ${singular}${value === 1 ? "" : "s"}`;
}

/** The first part of an id that is long only to be unique. */
export function short(id: string, length = 8): string {
  return id.slice(0, length);
}
