/** What the test that uses it is to notice. */
Promise.reject(new Error("nobody handles this"));
setTimeout(() => console.log("done"), 100);
