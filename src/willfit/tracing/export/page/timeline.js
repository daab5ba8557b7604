"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chart = document.getElementById("chart");
  const slider = document.getElementById("at");
  const names = Object.keys(data.series);
  const hidden = new Set();
  const ROWS = 48; // pixels
  const MOST_SHADES = 400; // more are a grey veil, and slow
  let chosen = data.peak;

  const [unit, unitName] = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]].find(([u]) => data.top >= u) || [1, "B"];
  const inUnit = (bytes) => bytes / unit;

  function size(bytes) {
    for (const [scale, name, digits] of [[2 ** 40, "TiB", 2], [2 ** 30, "GiB", 2], [2 ** 20, "MiB", 1], [2 ** 10, "KiB", 1]]) {
      if (bytes >= scale) return `${(bytes / scale).toFixed(digits)} ${name}`;
    }
    return `${bytes} B`;
  }

  // Plotly reads some tags in its texts; names are none.
  const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const number = (value) => value.toLocaleString("en-US");

  function bandAt(event) {
    return data.bands.find(([start, end]) => start <= event && event < end);
  }

  function phaseAt(event) {
    const band = bandAt(event);
    if (!band) return "";
    const [, , phase, step, micro] = band;
    const parts = [phase];
    if (step) parts.push(`${data.step} ${step}`);
    if (micro && data.micros > 1) parts.push(`micro-batch ${micro}`);
    return parts.join(", ");
  }

  function whatAt(index) {
    const [made, op, module, source, again, bytes] = data.changes[index].map((v, i) => (i > 0 && i < 4 ? data.words[v] : v));
    return { made, op, module, source, again, bytes };
  }

  function inspect(index) {
    const event = data.events[index];
    const what = whatAt(index);
    const shown = names.filter((name) => !hidden.has(name));
    document.getElementById("when").textContent =
      `event ${number(event)} of ${number(data.count)} · ${phaseAt(event)}` + (index === data.peak ? " · the peak" : "");
    document.getElementById("total").textContent =
      size(shown.reduce((sum, name) => sum + data.series[name][index], 0)) + (hidden.size ? " shown" : "");
    const where = document.getElementById("where");
    where.replaceChildren();
    const line = (text, kind) => {
      const span = document.createElement("span");
      span.textContent = text;
      if (kind) span.className = kind;
      where.append(span, document.createElement("br"));
    };
    line(`${what.made ? "+" : "−"} ${size(what.bytes)} ${what.made ? "by" : "freed, made by"} ${what.op}`);
    if (what.module) line(what.module + (what.again ? ", recomputed" : ""), "code");
    if (what.source) line(what.source, "code muted");
    for (const button of document.querySelectorAll("#categories button[data-name]")) {
      const bytes = data.series[button.dataset.name][index];
      button.querySelector(".size").textContent = bytes ? size(bytes) : "–";
    }
    const held = document.querySelector("#reserved .size");
    if (held) held.textContent = index < data.reserved.length ? size(data.reserved[index]) : "–";
  }

  function listCategories() {
    const list = document.getElementById("categories");
    for (const name of [...names].reverse()) {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.name = name;
      button.setAttribute("aria-pressed", "true");
      button.style.setProperty("--of", `var(--${name})`);
      fill(button, data.titles[name]);
      button.addEventListener("click", () => {
        if (!hidden.delete(name)) hidden.add(name);
        button.setAttribute("aria-pressed", String(!hidden.has(name)));
        draw();
        inspect(chosen);
      });
      item.append(button);
      list.append(item);
    }
    for (const [id, title, colour] of [["reserved", "reserved", "--reserved"], ["limit", "device limit", "--limit"]]) {
      if (id === "reserved" ? !data.reserved.length : !data.capacity) continue;
      const item = document.createElement("li");
      const row = document.createElement("button");
      row.type = "button";
      row.disabled = true;
      row.id = id;
      row.style.setProperty("--of", `var(${colour})`);
      fill(row, title, " line");
      item.append(row);
      list.append(item);
      if (id === "limit") row.querySelector(".size").textContent = size(data.capacity);
    }
  }

  function fill(row, title, kind = "") {
    for (const [text, name] of [["", "swatch" + kind], [title, ""], ["", "size"]]) {
      const span = document.createElement("span");
      span.textContent = text;
      span.className = name;
      row.append(span);
    }
  }

  // A value holds until the next event; the last one to the end.
  const xs = [0, ...data.events.slice(1), data.count];
  const upToTheEnd = (values) => [...values, values[values.length - 1]];

  function figure() {
    const theme = dark.matches ? data.themes.dark : data.themes.light;
    const narrow = innerWidth < 700;
    const margin = { l: narrow ? 52 : 64, r: 8, t: 28, b: 42 };
    // Two rows of names need a height of their own, whatever the chart's is.
    const top = 1 - ROWS / (chart.clientHeight - margin.t - margin.b);
    const shown = names.filter((name) => !hidden.has(name));
    const totals = data.events.map((_, i) => shown.reduce((sum, name) => sum + data.series[name][i], 0));
    const traces = shown.map((name) => ({
      x: xs, y: upToTheEnd(data.series[name]).map(inUnit), name: data.titles[name], type: "scatter", mode: "lines",
      stackgroup: "all", line: { shape: "hv", width: 0 }, fillcolor: theme.categories[name], hoverinfo: "skip",
    }));
    traces.push({
      x: xs, y: upToTheEnd(totals).map(inUnit), type: "scatter", mode: "lines", name: "allocated",
      line: { shape: "hv", width: 1, color: theme.ink }, opacity: 0.55,
      text: upToTheEnd(data.events.map((event, i) => {
        const what = whatAt(i);
        return `<b>${size(totals[i])}</b> · ${plain(phaseAt(event))}<br>${plain([what.op, what.module].filter(Boolean).join(" · "))}`;
      })),
      hovertemplate: "%{text}<extra></extra>",
    });
    if (data.reserved.length) {
      const until = data.failed === null ? xs : [...xs.slice(0, data.reserved.length), data.failed];
      traces.push({
        x: until, y: upToTheEnd(data.reserved).map(inUnit), type: "scatter", mode: "lines", name: "reserved",
        line: { shape: "hv", width: 1.8, color: theme.reserved }, hoverinfo: "skip",
      });
    }
    if (!hidden.size) {
      traces.push({
        x: [data.events[data.peak]], y: [inUnit(data.totals[data.peak])], type: "scatter", mode: "markers", name: "peak",
        marker: { color: theme.peak, size: 9, line: { color: theme.card, width: 1.5 } }, hoverinfo: "skip",
      });
    }
    for (const [row, bands, words] of [
      [1, data.steps, (b) => (b[3] ? `${data.step} ${b[3]}` : "")],
      [0, data.bands, (b) => b[2]],
    ]) {
      traces.push({
        type: "bar", orientation: "h", yaxis: "y2", base: bands.map((b) => b[0]), x: bands.map((b) => b[1] - b[0]),
        y: bands.map(() => row), width: 0.9, text: bands.map(words), textposition: "inside", insidetextanchor: "middle",
        textangle: 0, constraintext: "inside", cliponaxis: true, insidetextfont: { size: 11, color: row ? theme.ink : theme.muted },
        marker: { color: bands.map((_, i) => (i % 2 ? theme.card : theme.band)), line: { width: 0 } },
        customdata: bands.map((b) => plain(row ? words(b) : phaseAt(b[0]))), hovertemplate: "%{customdata}<extra></extra>",
      });
    }
    const shaded = data.bands.length <= MOST_SHADES ? data.bands.filter((_, i) => i % 2 === 0) : [];
    const shapes = shaded.map(([start, end]) => ({
      type: "rect", xref: "x", yref: "paper", x0: start, x1: end, y0: 0, y1: top, fillcolor: theme.band, line: { width: 0 },
      layer: "below",
    }));
    const upright = (event, dash) => ({
      type: "line", xref: "x", yref: "paper", x0: event, x1: event, y0: 0, y1: top,
      line: { color: theme.peak, width: 1, dash },
    });
    shapes.push(upright(data.events[data.peak], "dot"));
    if (chosen !== data.peak) shapes.push(upright(data.events[chosen], "solid"));
    if (data.capacity) {
      shapes.push({
        type: "line", xref: "paper", yref: "y", x0: 0, x1: 1, y0: inUnit(data.capacity), y1: inUnit(data.capacity),
        line: { color: theme.limit, width: 1.6, dash: "dash" },
      });
    }
    const left = data.events[data.peak] > data.count * 0.7;
    const annotations = hidden.size ? [] : [{
      x: data.events[data.peak], y: inUnit(data.totals[data.peak]), text: `<b>${size(data.totals[data.peak])}</b>`,
      showarrow: false, xanchor: left ? "right" : "left", xshift: left ? -10 : 10,
      bgcolor: theme.card, bordercolor: theme.line, borderpad: 4, font: { color: theme.ink, size: 13 },
    }];
    if (data.failed !== null) {
      shapes.push({ ...upright(data.failed, "solid"), line: { color: theme.limit, width: 1.6 } });
      const before = data.failed > data.count * 0.2; // the peak's words are after it
      annotations.push({
        x: data.failed, y: top, yref: "paper", yanchor: "top", text: "<b>out of memory</b>", showarrow: false,
        xanchor: before ? "right" : "left", xshift: before ? -4 : 4, font: { color: theme.limit, size: 12 },
      });
    }
    const layout = {
      uirevision: "kept", barmode: "overlay", bargap: 0, showlegend: false, hovermode: "x", dragmode: "zoom",
      paper_bgcolor: theme.card, plot_bgcolor: theme.card, margin,
      font: { family: getComputedStyle(document.body).fontFamily, color: theme.muted, size: 12 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: theme.muted, activecolor: theme.ink, orientation: "h" },
      hoverlabel: { bgcolor: theme.card, bordercolor: theme.line, font: { family: getComputedStyle(document.body).fontFamily, color: theme.ink, size: 13 }, align: "left" },
      uniformtext: { mode: "hide", minsize: 11 },
      xaxis: {
        range: [0, data.count], minallowed: 0, maxallowed: data.count, showgrid: false, zeroline: false, anchor: "y",
        tickformat: ",d", nticks: narrow ? 4 : 8, title: { text: "allocations and frees, in order", standoff: 8, font: { size: 12 } },
        showspikes: true, spikemode: "across", spikethickness: 1, spikedash: "solid", spikecolor: theme.muted, spikesnap: "hovered data",
      },
      yaxis: {
        domain: [0, top], range: [0, inUnit(data.top) * 1.06], minallowed: 0, gridcolor: theme.grid, zeroline: false,
        ticksuffix: ` ${unitName}`, ticks: "outside", ticklen: 6, tickcolor: "rgba(0,0,0,0)", nticks: narrow ? 5 : 7,
      },
      yaxis2: { domain: [top, 1], range: [-0.5, 1.5], fixedrange: true, visible: false },
      shapes, annotations,
    };
    return [traces, layout];
  }

  const config = {
    responsive: true, displaylogo: false, displayNotifier: false, showTips: false,
    // Nothing leaves the page.
    showSendToCloud: false, plotlyServerURL: "",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toggleSpikelines"],
    toImageButtonOptions: { filename: "memory-over-time", scale: 2 },
  };

  function draw() {
    const [traces, layout] = figure();
    Plotly.react(chart, traces, layout, config);
  }

  function choose(index) {
    chosen = Math.max(0, Math.min(index, data.events.length - 1));
    slider.value = chosen;
    draw();
    inspect(chosen);
  }

  slider.max = data.events.length - 1;
  slider.value = chosen;
  let waiting = false;
  slider.addEventListener("input", () => {
    inspect(Number(slider.value));
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; choose(Number(slider.value)); });
  });
  listCategories();
  draw();
  inspect(chosen);
  const indexOf = (event) => {
    const point = event.points.find((p) => p.data.name === "allocated");
    return point && Math.min(point.pointIndex, data.events.length - 1);
  };
  chart.on("plotly_hover", (event) => { const index = indexOf(event); if (index !== undefined) inspect(index); });
  chart.on("plotly_unhover", () => inspect(chosen));
  chart.on("plotly_click", (event) => { const index = indexOf(event); if (index !== undefined) choose(index); });
  dark.addEventListener("change", draw);
})();
