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

  // The data of a figure as a table: what the points are, where they stand, what hovering tells.
  function rows(figure) {
    const plain = (value) => String(value ?? "").replace(/<[^>]*>/g, "");
    const table = [];
    for (const trace of figure.data) {
      if (trace.type === "heatmap") {
        trace.z.forEach((line, y) => line.forEach((z, x) => {
          const cell = /^(\w+): picked (\d+), validated (\d+)/.exec(trace.hovertext?.[y]?.[x] ?? "");
          if (z !== null && cell) table.push({ element: cell[1], picked: cell[2], validated: cell[3] });
        }));
        continue;
      }
      if (!trace.name) continue;
      const [first, second] = figure.columns ?? ["x", "y"];
      trace.x.forEach((x, i) => {
        const row = { series: trace.name, material: plain(trace.text?.[i]), [first]: x, [second]: trace.y[i] };
        (trace.meta?.columns ?? []).forEach((name, k) => { row[name] ??= plain(trace.customdata[i][k]); });
        table.push(row);
      });
    }
    return table;
  }

  function csv(table) {
    const names = [...new Set(table.flatMap((row) => Object.keys(row)))];
    const quoted = (value) => /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
    const lines = table.map((row) => names.map((name) => quoted(String(row[name] ?? ""))).join(","));
    return [names.join(","), ...lines].join("\n") + "\n";
  }

  for (const button of document.querySelectorAll("[data-download]")) {
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      const name = button.dataset.download;
      link.href = URL.createObjectURL(new Blob([csv(rows(figures[name]))], { type: "text/csv" }));
      link.download = `${name}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }

  function redraw() { draw(dark.matches ? "dark" : "light"); }
  redraw();
  dark.addEventListener("change", redraw);
  narrow.addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => draw("light"));
  window.addEventListener("afterprint", redraw);
})();
