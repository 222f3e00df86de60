/*
 * absent.c
 *		Functions of the server that only what is not fuzzed would call.
 *
 * The parsers' files also hold wrappers for SQL.  No headers here: these are
 * names for the linker.
 */
extern void abort(void);

#define ABSENT(name_) void name_(void); void name_(void) { abort(); }

ABSENT(cstring_to_text)
ABSENT(cstring_to_text_with_len)
ABSENT(pg_detoast_datum_slice)
ABSENT(pg_do_encoding_conversion_buf)
