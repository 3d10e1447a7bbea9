import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  // Relative addresses, so that the page also works behind a path prefix.
  base: "./",
  plugins: [react()],
  build: {
    // The licences of what is bundled travel with it.
    license: { fileName: "licenses.md" },
    // No inlined data: addresses: the content security policy allows the page's own origin only.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  // `npm run dev` takes the events from a controller that runs.
  server: { host: "127.0.0.1", proxy: { "/api": process.env["HEADWAY_ADMIN"] ?? "http://127.0.0.1:8081" } },
});
