// Builds the page into the API's package, from which it is served; `npm run dev` shows it with a server's data.

import { defineConfig } from "vite";

const SERVER = "http://127.0.0.1:8000";

export default defineConfig({
  // Nothing names the host or the path in front of /page/, so that a gateway may serve it below any.
  base: "./",
  build: {
    outDir: "../api/openseer_api/page/static",
    emptyOutDir: true,
    target: ["chrome123", "firefox128", "safari17.5"],
    modulePreload: { polyfill: false },
    // A data URL would do, but a file of its own is cached by its name.
    assetsInlineLimit: 0,
  },
  server: { proxy: { "/page/api": SERVER, "/page/login": SERVER, "/page/logout": SERVER } },
});
