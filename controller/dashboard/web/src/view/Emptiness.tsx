// What stands where data would: before the first snapshot, in an empty cluster, and above data that is old.

import { duration } from "./format";
import { Icon } from "./Icon";
import { useNow } from "./useNow";

export function Waiting() {
  return (
    <div className="blank" role="status">
      <Icon name="loading" />
      <h2>Connecting to the controller</h2>
      <p>The cluster appears here with its first snapshot.</p>
    </div>
  );
}

export function EmptyCluster() {
  return (
    <div className="blank">
      <Icon name="pending" />
      <h2>No models yet</h2>
      <p>
        The controller answers, but it is still starting, or no model is deployed on it. <code>headway up --model DIR</code>{" "}
        starts a first one.
      </p>
    </div>
  );
}

interface LostBannerProps {
  retryAt: number;
  lastMessageAt: number | null;
  reconnect: () => void;
}

export function LostBanner({ retryAt, lastMessageAt, reconnect }: LostBannerProps) {
  const now = useNow();
  const wait = Math.ceil((retryAt - now) / 1000);
  return (
    <div className="banner">
      <Icon name="unhealthy" />
      <p role="alert">
        <strong>The event stream is lost.</strong>{" "}
        {lastMessageAt === null ? "The controller has not answered yet." : "What you see below is no longer live."}
      </p>
      <p className="banner-age">
        {lastMessageAt !== null && <>Data is {duration(now - lastMessageAt)} old. </>}
        {wait > 0 ? `Next attempt in ${wait} s.` : "Reconnecting…"}
      </p>
      <button type="button" onClick={reconnect}>
        Reconnect now
      </button>
    </div>
  );
}
