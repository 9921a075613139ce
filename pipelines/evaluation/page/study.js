"use strict";
(() => {
  const { study, folder, questions, comparisons } = JSON.parse(document.getElementById("study").textContent);
  const STORE = `interavatar-study/${study}`;
  const element = (id) => document.getElementById(id);
  const videos = { left: element("left"), right: element("right") };
  // answers: `comparison/question` -> { answer, at }; asked: number of the question that keys answer.
  let rater = "", answers = {}, shown = 0, asked = 0;

  // What lasts beyond the page

  function kept(name) {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  }

  function keep(name, value) {
    try {
      localStorage.setItem(name, value);
    } catch {
      say("This browser keeps nothing: save your answers before you close the page.");
    }
  }

  function read(name) {
    try {
      return JSON.parse(kept(`${STORE}/${name}`)) ?? {};
    } catch {
      return {};
    }
  }

  function begin(name) {
    rater = name.trim();
    answers = rater ? read(rater) : {};
    if (rater) keep(STORE, rater);
    element("rater").value = rater;
    const open = comparisons.findIndex((_, number) => unanswered(number).length);
    show(open < 0 ? comparisons.length - 1 : open);
  }

  // Answers

  const named = (number, question) => `${comparisons[number].id}/${questions[question]}`;
  const answerOf = (number, question) => answers[named(number, question)]?.answer;
  const unanswered = (number) => [...questions.keys()].filter((question) => !answerOf(number, question));

  function answer(question, said) {
    if (!rater) {
      say("Write your name first.");
      element("rater").focus();
      return;
    }
    const wasOpen = unanswered(shown).length > 0;
    answers[named(shown, question)] = { answer: said, at: new Date().toISOString() };
    keep(`${STORE}/${rater}`, JSON.stringify(answers));
    const open = unanswered(shown);
    if (open.length) choose(open.find((one) => one > question) ?? open[0]);
    else if (wasOpen) advance();
    else choose(question);
    mark();
  }

  function advance() {
    const later = comparisons.findIndex((_, number) => number > shown && unanswered(number).length);
    const open = later < 0 ? comparisons.findIndex((_, number) => unanswered(number).length) : later;
    if (open >= 0) {
      show(open);
      return;
    }
    mark();
    say("All is answered. Save your answers and send the file. Thank you!");
  }

  // Cells that a spreadsheet would compute begin with a quote.
  const cell = (text) => `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;

  function save() {
    if (!rater) {
      say("Write your name first.");
      element("rater").focus();
      return;
    }
    const lines = [["study", "rater", "comparison", "question", "answer", "at"]];
    for (const { id } of comparisons) {
      for (const question of questions) {
        const said = answers[`${id}/${question}`];
        if (said) lines.push([study, rater, id, question, said.answer, said.at]);
      }
    }
    const text = lines.map((line) => `${line.map(cell).join(",")}\n`).join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = `answers-${study}-${rater.replace(/[^\p{L}\p{N}]+/gu, "_")}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  // What is seen

  function say(text) {
    element("notice").textContent = text;
  }

  function show(number) {
    shown = number;
    say("");
    for (const side of ["left", "right"]) {
      videos[side].src = `${encodeURIComponent(folder)}/${comparisons[number][side]}`;
      videos[side].nextElementSibling.lastElementChild.textContent = "";
    }
    choose(unanswered(number)[0] ?? 0);
    mark();
    if (rater) play(["left", "right"]);
  }

  function choose(question) {
    asked = question;
    for (const [number, name] of questions.entries()) element(name).toggleAttribute("data-current", number === question);
    if (document.activeElement !== element("rater")) element(questions[question]).focus({ preventScroll: true });
  }

  function mark() {
    for (const [number, name] of questions.entries()) {
      for (const button of element(name).querySelectorAll("button")) {
        button.setAttribute("aria-pressed", String(answerOf(shown, number) === button.dataset.answer));
      }
    }
    const total = comparisons.length * questions.length;
    const open = comparisons.reduce((sum, _, number) => sum + unanswered(number).length, 0);
    element("progress").textContent = `pair ${shown + 1} of ${comparisons.length}, ${total - open} of ${total} answers`;
    element("back").disabled = shown === 0;
    element("next").disabled = shown === comparisons.length - 1;
  }

  function play(sides) {
    for (const side of ["left", "right"]) {
      const video = videos[side];
      video.pause();
      video.muted = side !== sides[0];
      if (!sides.includes(side)) continue;
      video.currentTime = 0;
      // Where a browser wants a click first, it is the button's.
      video.play().catch(() => {});
    }
  }

  function go(step) {
    const number = shown + step;
    if (number >= 0 && number < comparisons.length) show(number);
  }

  // Keys and buttons

  const KEYS = {
    ArrowLeft: () => answer(asked, "left"),
    ArrowRight: () => answer(asked, "right"),
    0: () => answer(asked, "tie"),
    " ": () => play(["left", "right"]),
    a: () => play(["left"]),
    d: () => play(["right"]),
    n: () => go(1),
    p: () => go(-1),
  };

  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    const within = event.target.tagName;
    if (within === "INPUT" || (within === "BUTTON" && event.key === " ")) return;
    const number = /^[1-9]$/.test(event.key) ? Number(event.key) - 1 : -1;
    const done = KEYS[event.key] ?? (number >= 0 && number < questions.length ? () => choose(number) : null);
    if (!done) return;
    event.preventDefault();
    done();
  });
  for (const [number, name] of questions.entries()) {
    for (const button of element(name).querySelectorAll("button")) {
      button.addEventListener("click", () => answer(number, button.dataset.answer));
    }
  }
  for (const side of ["left", "right"]) {
    videos[side].addEventListener("error", () => {
      videos[side].nextElementSibling.lastElementChild.textContent = ": this clip cannot be played";
    });
  }
  element("rater").addEventListener("change", () => begin(element("rater").value));
  element("rater").addEventListener("keydown", (event) => {
    if (event.key === "Enter") element("rater").blur();
  });
  element("play-left").addEventListener("click", () => play(["left"]));
  element("play-both").addEventListener("click", () => play(["left", "right"]));
  element("play-right").addEventListener("click", () => play(["right"]));
  element("back").addEventListener("click", () => go(-1));
  element("next").addEventListener("click", () => go(1));
  element("save").addEventListener("click", save);

  begin(kept(STORE) ?? "");
  if (!rater) {
    say("Write your name first.");
    element("rater").focus();
  }
  document.body.dataset.ready = "";
})();
