import type { Activity } from "../state/activity";
import { clockTime } from "./format";

export function ActivityList({ activities }: { activities: readonly Activity[] }) {
  return (
    <section className="panel" aria-labelledby="activity-title">
      <h2 id="activity-title" className="section-title">
        Activity <span className="section-note">since this page was opened</span>
      </h2>
      {activities.length === 0 && <p className="hint">Nothing has changed.</p>}
      <ol className="activity" role="log" tabIndex={0} aria-labelledby="activity-title">
        {activities.map((activity) => (
          <li key={activity.key}>
            <time dateTime={new Date(activity.time).toISOString()}>{clockTime(activity.time)}</time>
            <span className={`dot dot-${(activity.state ?? "none").toLowerCase()}`} aria-hidden="true" />
            <span>
              <b className="mono">{activity.subject}</b> {activity.text}
            </span>
          </li>
        ))}
      </ol>
    </section>
  );
}
