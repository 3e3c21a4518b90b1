// What a program gets that asks for the package `ws`.
module.exports = require("../../lib/ws.ts").default;
