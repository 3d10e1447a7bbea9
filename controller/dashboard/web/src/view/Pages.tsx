import type { Load } from "../state/messages";
import { count, percent } from "./format";

/** The replica's KV pages: held by running requests, holding only cached prefixes, free. */
export function Pages({ load }: { load: Load }) {
  const { usedPages, cachedPages, totalPages } = load;
  const share = (pages: number) => Math.min(1, pages / totalPages);
  const width = (pages: number) => ({ width: `${(share(pages) * 100).toFixed(2)}%` });
  return (
    <div className="meter">
      <div className="meter-head">
        <span>{count(totalPages)} KV pages</span>
        <span>
          <i className="swatch bar-used" /> {count(usedPages)} used <i className="swatch bar-cached" /> {count(cachedPages)} cached
        </span>
      </div>
      <div className="bar" role="img" aria-label={`${percent(share(usedPages))} used, ${percent(share(cachedPages))} cached`}>
        <span className="bar-used" style={width(usedPages)} />
        <span className="bar-cached" style={width(cachedPages)} />
      </div>
    </div>
  );
}
