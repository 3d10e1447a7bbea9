import type { Router } from "../state/messages";
import { count, milliseconds, percent, rate } from "./format";

const COLUMNS: readonly { title: string; cell: (router: Router) => string }[] = [
  { title: "req/s", cell: (router) => rate(router.requestsPerSecond) },
  { title: "tok/s", cell: (router) => rate(router.outputTokensPerSecond) },
  { title: "TTFT p50", cell: (router) => milliseconds(router.ttftP50Ms) },
  { title: "TTFT p99", cell: (router) => milliseconds(router.ttftP99Ms) },
  { title: "TPOT p50", cell: (router) => milliseconds(router.tpotP50Ms) },
  { title: "TPOT p99", cell: (router) => milliseconds(router.tpotP99Ms) },
  { title: "hits", cell: (router) => percent(router.requestsPerSecond > 0 ? router.prefixHitRatio : null) },
  { title: "in flight", cell: (router) => count(router.running) },
  { title: "requests", cell: (router) => count(router.requests) },
  { title: "errors", cell: (router) => count(router.errors) },
  { title: "migrations", cell: (router) => count(router.migrations) },
];

function RouterRow({ router }: { router: Router }) {
  return (
    <tr>
      <th scope="row">
        <span className="mono">{router.id}</span>
        <small>
          {[router.grpcAddress && `gRPC ${router.grpcAddress}`, router.httpAddress, router.pid && `pid ${router.pid}`]
            .filter(Boolean)
            .map((fact) => <span key={fact}>{fact}</span>)}
        </small>
      </th>
      {COLUMNS.map((column) => (
        <td key={column.title}>{column.cell(router)}</td>
      ))}
    </tr>
  );
}

export function RouterTable({ routers }: { routers: readonly Router[] }) {
  return (
    <section className="panel" aria-labelledby="routers-title">
      <h2 id="routers-title" className="section-title">
        Routers
      </h2>
      {routers.length === 0 ? (
        <p className="hint">No router has reported yet.</p>
      ) : (
        // Focusable, so that the keyboard can scroll it where the page is narrow.
        <div className="table-holder" tabIndex={0} role="region" aria-labelledby="routers-title">
          <table>
            <thead>
              <tr>
                <th scope="col">Router</th>
                {COLUMNS.map((column) => (
                  <th key={column.title} scope="col">
                    {column.title}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {routers.map((router) => (
                <RouterRow key={router.id} router={router} />
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
