import { useEffect, useState } from "react";

/** The time in milliseconds since 1970, renewed every `period`. */
export function useNow(period = 1000): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), period);
    return () => clearInterval(timer);
  }, [period]);
  return now;
}
