// The service worker of a page: shows pushes that came over FCM, reports each as delivered and clicked, and takes off the
// screen what an SMS has overtaken. A service worker must come from the page's own origin, so your server offers a file
// with one line: importScripts("https://push.example.com/knocktwice-worker.js"). See docs/phones-and-pages.md.
(() => {
  "use strict";

  // Pauses before a report is tried again, in milliseconds.
  const PAUSES_MS = [1000, 5000];

  self.addEventListener("push", (event) => {
    const message = payload(event);
    const withdrawn = message && message.data && message.data.knocktwice_withdraw;
    if (withdrawn) {
      event.waitUntil(withdraw(withdrawn));
    } else if (message && message.notification) {
      const { title, ...shown } = message.notification;
      const data = { ...message.data, link: link(message) };
      event.waitUntil(
        self.registration
          .showNotification(title || "", { ...shown, data })
          .then(() => report(data.knocktwice_receipt, "delivered")),
      );
    }
  });

  self.addEventListener("notificationclick", (event) => {
    const data = event.notification.data || {};
    event.notification.close();
    // The window is opened first: browsers allow it for a moment after the click only.
    event.waitUntil(Promise.all([open(data.link), report(data.knocktwice_receipt, "clicked")]));
  });

  // FCM's message; null for a push that is none.
  function payload(event) {
    try {
      return event.data ? event.data.json() : null;
    } catch {
      return null;
    }
  }

  function link(message) {
    const options = message.fcmOptions || {};
    return options.link || (message.data && message.data.link) || null;
  }

  async function withdraw(notification) {
    const shown = await self.registration.getNotifications({ tag: notification });
    shown.forEach((one) => one.close());
  }

  async function open(address) {
    let target;
    try {
      target = new URL(address, self.location.origin);
    } catch {
      return;
    }
    // A link with another scheme would run as a script.
    if (!address || !/^https?:$/.test(target.protocol)) return;
    const windows = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
    const there = windows.find((one) => one.url === target.href);
    try {
      await (there ? there.focus() : self.clients.openWindow(target.href));
    } catch {
      // The browser allows no window now. The click is reported all the same.
    }
  }

  // Twice is harmless, and lost is an SMS too many, so it is tried again.
  async function report(address, kind) {
    if (!address) return;
    for (const pause of [0, ...PAUSES_MS]) {
      if (pause) await new Promise((resolve) => setTimeout(resolve, pause));
      try {
        const answer = await fetch(`${address}/${kind}`, { method: "POST", keepalive: true, credentials: "omit" });
        if (answer.ok || (answer.status < 500 && answer.status !== 429)) return;
      } catch {
        // No network: the next try may have one.
      }
    }
  }
})();
