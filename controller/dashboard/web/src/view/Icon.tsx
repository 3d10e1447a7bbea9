// One 16 × 16 drawing a name. Shape alone tells states apart, so that colour never has to.

const PATHS = {
  ready: "M3 8.5l3.2 3.2L13 5",
  loading: "M8 2.5a5.5 5.5 0 1 0 5.5 5.5M8 5v3l2 1.5",
  pending: "M8 2.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 0 1 0-11M5 8h.01M8 8h.01M11 8h.01",
  draining: "M8 2.5v8M4.5 7.5L8 11l3.5-3.5M3 13.5h10",
  unhealthy: "M8 2.2L14.5 13.5h-13zM8 6.5v3.2M8 11.6h.01",
  stopped: "M4 4h8v8H4z",
  unknown: "M5.8 6.2a2.2 2.2 0 1 1 3.2 2c-.7.4-1 .8-1 1.6M8 12.2h.01",
  live: "M8 8h.01M5 11a4.2 4.2 0 0 1 0-6M11 5a4.2 4.2 0 0 1 0 6M2.8 13.2a7.3 7.3 0 0 1 0-10.4M13.2 2.8a7.3 7.3 0 0 1 0 10.4",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg className={`icon icon-${name}`} viewBox="0 0 16 16" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
