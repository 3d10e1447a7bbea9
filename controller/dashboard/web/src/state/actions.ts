// The operators' changes. Each is one POST; a refusal becomes an Error whose message is the server's own.

/** Parts of the body where servers put the text of an error. */
function messageIn(body: unknown): string | null {
  if (typeof body === "string") return body || null;
  if (typeof body !== "object" || body === null) return null;
  const { error, message, detail } = body as Record<string, unknown>;
  return messageIn(error) ?? messageIn(message) ?? messageIn(detail);
}

async function refusal(response: Response): Promise<string> {
  const body = (await response.text()).trim();
  try {
    return messageIn(JSON.parse(body)) ?? `The controller answered ${response.status}.`;
  } catch {
    return body.slice(0, 500) || `The controller answered ${response.status}.`;
  }
}

/** The steps that the controller says it took, one line each. */
function stepsIn(body: unknown): string[] {
  const steps = (body as { effect?: { steps?: unknown } } | null)?.effect?.steps;
  return Array.isArray(steps) ? steps.map(String) : [];
}

async function post(address: string, body: object): Promise<string[]> {
  let response: Response;
  try {
    response = await fetch(address, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Error("The controller cannot be reached. Nothing is known to have changed.");
  }
  if (!response.ok) throw new Error(await refusal(response));
  return stepsIn(await response.json().catch(() => null));
}

export function drain(replicaId: string, timeoutSeconds: number): Promise<string[]> {
  return post("api/drain", { replicaId, timeoutSeconds });
}

export function scale(model: string, replicas: number): Promise<string[]> {
  return post("api/scale", { model, replicas });
}
