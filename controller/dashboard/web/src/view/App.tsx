import { useCallback, useState, useSyncExternalStore } from "react";

import { modelGroups, sortedRouters } from "../state/cluster";
import type { Model, Replica } from "../state/messages";
import type { Store } from "../state/store";
import { ActivityList } from "./ActivityList";
import { DrainDialog } from "./DrainDialog";
import { EmptyCluster, LostBanner, Waiting } from "./Emptiness";
import { FigureRow } from "./FigureRow";
import { Header } from "./Header";
import { ModelSection } from "./ModelSection";
import { Notice } from "./Notice";
import { RouterTable } from "./RouterTable";
import { ScaleDialog } from "./ScaleDialog";

type Asked = { action: "drain"; replica: Replica } | { action: "scale"; model: Model } | null;

export function App({ store, reconnect }: { store: Store; reconnect: () => void }) {
  const state = useSyncExternalStore(store.subscribe, store.get);
  const [asked, setAsked] = useState<Asked>(null);
  const [notice, setNotice] = useState<string | null>(null);
  const dismiss = useCallback(() => setNotice(null), []);
  const { connection, cluster, lastMessageAt } = state;
  const groups = modelGroups(cluster);
  const routers = sortedRouters(cluster);
  // Nobody should change a cluster by a picture that is old.
  const canAct = connection.phase === "live";
  const finish = (text: string | null) => {
    setAsked(null);
    if (text) setNotice(text);
  };

  return (
    <>
      <div className="stuck">
        <Header connection={connection} cluster={cluster} />
        {connection.phase === "lost" && (
          <LostBanner retryAt={connection.retryAt} lastMessageAt={lastMessageAt} reconnect={reconnect} />
        )}
      </div>
      <main className={canAct ? "page" : "page is-old"}>
        {lastMessageAt === null ? (
          connection.phase === "connecting" && <Waiting />
        ) : (
          <>
            <FigureRow routers={routers} history={state.history} isLive={canAct} />
            <section aria-labelledby="cluster-title">
              <h2 id="cluster-title" className="section-title">
                Cluster
              </h2>
              {groups.length === 0 && <EmptyCluster />}
              {groups.map((group) => (
                <ModelSection
                  key={group.model.name}
                  group={group}
                  canAct={canAct}
                  onScale={(model) => setAsked({ action: "scale", model })}
                  onDrain={(replica) => setAsked({ action: "drain", replica })}
                />
              ))}
            </section>
            <div className="lower">
              <RouterTable routers={routers} />
              <ActivityList activities={state.activities} />
            </div>
          </>
        )}
      </main>
      {asked?.action === "drain" && <DrainDialog replica={asked.replica} onClose={finish} />}
      {asked?.action === "scale" && <ScaleDialog model={asked.model} onClose={finish} />}
      <Notice text={notice} onDismiss={dismiss} />
    </>
  );
}
