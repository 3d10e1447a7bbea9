import "./style/base.css";
import "./style/page.css";
import "./style/replica.css";
import "./style/dialog.css";
import "uplot/dist/uPlot.min.css";

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { Store } from "./state/store";
import { Stream } from "./state/stream";
import { App } from "./view/App";

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");

const store = new Store();
const stream = new Stream(store, "api/watch");
stream.connect();
setInterval(() => store.sample(Date.now()), 1000);

createRoot(root).render(
  <StrictMode>
    <App store={store} reconnect={stream.connect} />
  </StrictMode>,
);
