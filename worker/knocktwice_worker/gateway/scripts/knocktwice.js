// knocktwice.js: a page tells knocktwice about its visitor: whether notifications are on, on which device, and what their
// number is. It needs no other script. See docs/phones-and-pages.md.
(() => {
  "use strict";

  const OWN_ADDRESS = document.currentScript ? document.currentScript.src : location.href;
  const REMEMBERED = "knocktwice";
  // What was reported is reported again after a day, so that a device that is in use is seen.
  const AGAIN_AFTER_MS = 24 * 60 * 60 * 1000;

  // An answer that is no success. `status` is the HTTP status, `problem` the gateway's description of it.
  class KnocktwiceError extends Error {
    constructor(status, problem) {
      super(problem.detail || `the gateway answered ${status}`);
      this.name = "KnocktwiceError";
      this.status = status;
      this.problem = problem;
    }
  }

  class Knocktwice {
    // Options:
    //   token: a function that asks your backend for a user token, or the token itself.
    //   registration: a function that gets the ServiceWorkerRegistration and returns FCM's registration token, for example
    //     with getToken() of Firebase's SDK. Without it the page reports the permission only.
    //   worker: the address of your service worker, on the page's own origin.
    //   gateway: where this script came from, unless you say otherwise.
    constructor({ token, registration = null, worker = "/knocktwice-worker.js", gateway = new URL(".", OWN_ADDRESS).href }) {
      this._token = typeof token === "function" ? token : () => token;
      this._registration = registration;
      this._worker = worker;
      this._gateway = gateway.replace(/\/+$/, "");
      this._known = null;
    }

    // "granted", "denied", "default" (nobody has asked yet) or "unsupported".
    get permission() {
      const supported = "Notification" in window && "serviceWorker" in navigator && "PushManager" in window;
      return supported ? Notification.permission : "unsupported";
    }

    // Tell knocktwice whether notifications are on, without asking the visitor. Call it on every page with a visitor.
    // Returns whether they are on.
    async report() {
      const registration = this.permission === "granted" ? await this._register() : null;
      const remembered = read();
      const on = this.permission === "granted" && (registration !== null || this._registration === null);
      const body = { notifications_enabled: on };
      if (registration || remembered.registration) {
        const { locale, timeZone } = Intl.DateTimeFormat().resolvedOptions();
        Object.assign(body, { registration: registration || remembered.registration, platform: "web", locale });
        // A browser may not know its zone.
        if (timeZone) body.time_zone = timeZone;
      }
      const token = await this._current();
      const said = JSON.stringify([subject(token), body]);
      if (remembered.said === said && Date.now() - remembered.at < AGAIN_AFTER_MS) return on;
      if (registration && remembered.registration && remembered.registration !== registration) {
        await this._call("DELETE", `/v1/me/devices/${encodeURIComponent(remembered.registration)}`);
      }
      await this._call("PUT", "/v1/me/permission", body);
      write({ said, at: Date.now(), registration: body.registration });
      return on;
    }

    // Ask the visitor for permission, and report what they said. Browsers allow it in the handler of a click only.
    async subscribe() {
      if (this.permission === "default") await Notification.requestPermission();
      return this.report();
    }

    // Set tags that the operator allows; null removes one.
    async setTags(tags) {
      await this._call("PUT", "/v1/me/tags", { tags });
    }

    // Say that the visitor has seen what notifications say, for example in the page's own list of messages. An array of ids.
    async seen(notifications) {
      await this._call("POST", "/v1/me/seen", { notifications });
    }

    // Have a code sent to the visitor's number by SMS.
    async sendCode(phone) {
      await this._call("POST", "/v1/me/phone", { phone });
      this._phone = phone;
    }

    // Bind the number, by the code that came to it.
    async verify(code, phone = this._phone) {
      await this._call("POST", "/v1/me/phone/verify", { phone, code });
    }

    // At logout: this browser is not the visitor's any more.
    async signOut() {
      const { registration } = read();
      write({});
      if (registration) await this._call("DELETE", `/v1/me/devices/${encodeURIComponent(registration)}`);
    }

    async _register() {
      const worker = await navigator.serviceWorker.register(this._worker);
      await navigator.serviceWorker.ready;
      return this._registration ? (await this._registration(worker)) || null : null;
    }

    async _current() {
      if (this._known === null) this._known = await this._token();
      return this._known;
    }

    async _call(method, path, body, again = true) {
      const headers = { Authorization: `Bearer ${await this._current()}` };
      if (body !== undefined) headers["Content-Type"] = "application/json";
      const answer = await fetch(this._gateway + path, { method, headers, body: body && JSON.stringify(body), credentials: "omit" });
      if (answer.status === 401 && again) {
        // The token has expired: the backend makes another one.
        this._known = null;
        return this._call(method, path, body, false);
      }
      const told = await answer.json().catch(() => ({}));
      if (!answer.ok) throw new KnocktwiceError(answer.status, told);
      return told;
    }
  }

  // Whose a token is, so that the next visitor of this browser is reported, too.
  function subject(token) {
    try {
      return JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"))).sub;
    } catch {
      return null;
    }
  }

  // A browser that keeps nothing for the page reports each time.
  function read() {
    try {
      return JSON.parse(localStorage.getItem(REMEMBERED)) || {};
    } catch {
      return {};
    }
  }

  function write(value) {
    try {
      localStorage.setItem(REMEMBERED, JSON.stringify(value));
    } catch {
      // Nothing is remembered.
    }
  }

  window.Knocktwice = Knocktwice;
  window.KnocktwiceError = KnocktwiceError;
})();
