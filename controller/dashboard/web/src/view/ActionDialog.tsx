import { type ReactNode, useId, useLayoutEffect, useRef, useState } from "react";

interface ActionDialogProps {
  title: string;
  confirm: string;
  isDangerous?: boolean;
  /** Does the change; what it throws is shown, and the dialog stays. */
  act: () => Promise<string>;
  /** With the outcome when the change was made, with null when the operator went back. */
  onClose: (outcome: string | null) => void;
  children: ReactNode;
}

/** Asks before a change. A native modal dialog: it keeps the focus, Escape closes it, focus returns afterwards. */
export function ActionDialog({ title, confirm, isDangerous = false, act, onClose, children }: ActionDialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);

  // Closed before it leaves the page (hence the layout effect): only then does the browser give the focus back.
  useLayoutEffect(() => {
    const opened = dialog.current;
    opened?.showModal();
    return () => opened?.close();
  }, []);

  const submit = async () => {
    setBusy(true);
    setError(null);
    try {
      onClose(await act());
    } catch (failure) {
      setError(failure instanceof Error ? failure.message : String(failure));
      setBusy(false);
    }
  };

  return (
    <dialog
      ref={dialog}
      aria-labelledby={titleId}
      onCancel={(event) => {
        event.preventDefault();
        if (!isBusy) onClose(null);
      }}
      onClose={() => {
        // Browsers let nobody prevent a second Escape.
        if (dialog.current && !dialog.current.open) onClose(null);
      }}
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <h2 id={titleId}>{title}</h2>
        {children}
        {error && (
          <p className="dialog-error" role="alert">
            {error}
          </p>
        )}
        <footer>
          <button type="button" disabled={isBusy} onClick={() => onClose(null)}>
            Cancel
          </button>
          <button type="submit" className={isDangerous ? "primary is-dangerous" : "primary"} disabled={isBusy}>
            {isBusy ? "Working…" : confirm}
          </button>
        </footer>
      </form>
    </dialog>
  );
}

/** The controller's own account of what it did, or ours where it gave none. */
export function outcome(steps: string[], otherwise: string): string {
  return steps.length > 0 ? steps.join("; ") : otherwise;
}
