/** An unhandled rejection, which the test that runs this must notice. */
Promise.reject(new Error("nobody handles this"));
setTimeout(() => console.log("done"), 100);
