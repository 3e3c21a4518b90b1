/**
 * The version of the library.
 *
 * A file of its own because neither of the packages' manifests can be imported on every platform; a test
 * holds it equal to theirs.
 *
 * @module
 */

/** The version of the library, as in its manifests. */
export const VERSION = "0.1.0";
