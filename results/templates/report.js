(function () {
  "use strict";
  const { figures, themes } = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 40rem)");
  const touch = window.matchMedia("(hover: none)").matches;
  const canvas = document.createElement("canvas");
  const webgl = Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));

  function draw(themeName) {
    for (const div of document.querySelectorAll("[data-figure]")) {
      const figure = structuredClone(figures[div.dataset.figure]);
      const layout = figure.layout;
      layout.template = themes[themeName];
      layout.autosize = true;
      // A finger that scrolls the page must not pan or zoom the figure under it.
      if (touch) layout.dragmode = false;
      if (narrow.matches) {
        layout.font = { size: 11 };
        layout.legend = { ...layout.legend, font: { size: 11 } };
      }
      for (const trace of figure.data) {
        if (trace.type === "scattergl" && !webgl) trace.type = "scatter";
        if (trace.type === "heatmap" && narrow.matches) trace.textfont.size = 8;
      }
      Plotly.react(div, figure.data, layout, {
        // Only what works on this page alone: plotly's own choice has a button that uploads the data.
        modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], showSendToCloud: false,
        displayModeBar: touch ? false : "hover", displaylogo: false, responsive: true,
      });
    }
  }

  function redraw() { draw(dark.matches ? "dark" : "light"); }
  redraw();
  dark.addEventListener("change", redraw);
  narrow.addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => draw("light"));
  window.addEventListener("afterprint", redraw);
})();
