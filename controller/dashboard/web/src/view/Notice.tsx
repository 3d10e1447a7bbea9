import { useEffect } from "react";

const SHOWN_MS = 8000;

/** Says that a change was taken, then goes. The region stays in the page, or screen readers would miss the first text. */
export function Notice({ text, onDismiss }: { text: string | null; onDismiss: () => void }) {
  useEffect(() => {
    if (text === null) return;
    const timer = setTimeout(onDismiss, SHOWN_MS);
    return () => clearTimeout(timer);
  }, [text, onDismiss]);
  return (
    <div className="notice-region" role="status">
      {text && (
        <div className="notice">
          <span>{text}</span>
          <button type="button" onClick={onDismiss} aria-label="Dismiss">
            ×
          </button>
        </div>
      )}
    </div>
  );
}
