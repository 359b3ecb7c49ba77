// Keeps an open page up to date: the server sends the whole content whenever it has
// changed, and the parts that differ are swapped. Times are shown in local time.
"use strict";
(() => {
  const live = document.getElementById("live");
  const announce = document.getElementById("announce");
  const connection = document.getElementById("connection");
  const sent = new Map(); // id of a part → its HTML as the server sent it
  let stream = null;

  function localTimes(root) {
    for (const t of root.querySelectorAll("time[datetime]")) {
      const at = new Date(t.dateTime);
      if (isNaN(at)) continue;
      t.textContent = at.toLocaleString();
      t.title = t.dateTime;
    }
  }

  function remember(root) {
    sent.clear();
    for (const part of root.querySelectorAll("[data-part]")) sent.set(part.id, part.innerHTML);
  }

  // The element that has the focus, in words that find its successor.
  function focused() {
    const e = document.activeElement;
    if (!e || !live.contains(e)) return null;
    if (e.id) return "#" + CSS.escape(e.id);
    const name = e.hasAttribute("href") ? "href" : e.hasAttribute("aria-label") ? "aria-label" : null;
    return name && e.tagName.toLowerCase() + "[" + name + "=" + JSON.stringify(e.getAttribute(name)) + "]";
  }

  function swap(html) {
    const next = new DOMParser().parseFromString(html, "text/html").getElementById("content");
    const now = document.getElementById("content");
    if (!next || !now) return;
    const parts = (root) => [...root.querySelectorAll("[data-part]")].map((p) => p.id).join();
    const focus = focused();
    if (parts(next) !== parts(now) || parts(next) === "") {
      remember(next);
      live.replaceChildren(document.adoptNode(next));
    } else {
      for (const part of next.querySelectorAll("[data-part]")) {
        if (sent.get(part.id) === part.innerHTML) continue;
        const old = document.getElementById(part.id);
        const places = [...old.querySelectorAll(".scroll")].map((s) => [s.scrollLeft, s.scrollTop]);
        sent.set(part.id, part.innerHTML);
        old.replaceChildren(...document.adoptNode(part).childNodes);
        old.querySelectorAll(".scroll").forEach((s, i) => places[i] && s.scrollTo(...places[i]));
      }
      for (const name of ["data-status", "data-title"]) now.setAttribute(name, next.getAttribute(name));
    }
    localTimes(live);
    if (focus && !live.contains(document.activeElement)) live.querySelector(focus)?.focus({ preventScroll: true });
    const content = document.getElementById("content");
    if (announce.textContent !== content.dataset.status) announce.textContent = content.dataset.status;
    document.title = content.dataset.title;
  }

  // A hidden page has no stream: a browser opens only six connections to a server.
  function connect() {
    const path = document.body.dataset.live;
    if (!path) return;
    if (document.hidden) {
      stream?.close();
      stream = null;
      return;
    }
    if (stream) return;
    stream = new EventSource(path);
    stream.onmessage = (e) => swap(e.data);
    stream.onopen = () => { connection.textContent = "Live."; };
    stream.onerror = () => {
      connection.textContent = "The connection is lost; what is shown may be old.";
      if (stream && stream.readyState === EventSource.CLOSED) {
        stream = null;
        setTimeout(connect, 3000);
      }
    };
  }

  remember(live);
  localTimes(document);
  document.addEventListener("visibilitychange", connect);
  addEventListener("pagehide", () => { stream?.close(); stream = null; });
  addEventListener("pageshow", connect);
  connect();
})();
