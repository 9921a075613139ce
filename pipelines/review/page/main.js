// Everything is put together; what is seen first comes first.

async function start() {
  buildCoverage();
  buildErrors();
  buildTime();
  await verdicts.start();
  grid = new Grid(byId("sheet"));
  buildFilters();
  buildDialog();
  buildGroups();
  await buildThresholds();
  refresh();
  buildScores();
  byId("reset").addEventListener("click", resetThresholds);
  byId("export").addEventListener("click", exportScreen);
  byId("changes").addEventListener("click", () => { setFilter({ verdict: "changed" }); byId("clips").scrollIntoView(); });
  document.body.dataset.ready = "yes";
  await startReview();
}

start().catch((error) => {
  byId("now").textContent = `This page cannot be shown: ${error.message}. It needs a browser of 2023 or newer (Chromium, Firefox or Safari).`;
  throw error;
});
