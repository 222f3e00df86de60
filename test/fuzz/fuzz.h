/*
 * fuzz.h
 *		What a fuzz target uses: checks, memory, texts, and errors.
 *
 * A target defines LLVMFuzzerTestOneInput; everything that it pallocs lives
 * until it calls fuzz_reset.  A check that fails, and an error where none was
 * announced by FUZZ_TRY, abort.
 */
#ifndef CONTACTSYNC_FUZZ_H
#define CONTACTSYNC_FUZZ_H

#include "postgres.h"

#include <setjmp.h>

#include "contact/contact.h"
#include "contact/contact_vcard.h"

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

/* Set while a throw is expected. */
extern jmp_buf *fuzz_catch;

/* Run a statement that may throw; false if it did. */
#define FUZZ_TRY(ok_, ...) \
	do { \
		jmp_buf		buf_; \
		fuzz_catch = &buf_; \
		if (setjmp(buf_) == 0) \
		{ \
			__VA_ARGS__; \
			(ok_) = true; \
		} \
		else \
			(ok_) = false; \
		fuzz_catch = NULL; \
	} while (0)

#define FUZZ_CHECK(condition_) \
	do { \
		if (!(condition_)) \
			fuzz_failed(#condition_, __FILE__, __LINE__); \
	} while (0)

extern void fuzz_failed(const char *condition, const char *file, int line) pg_attribute_noreturn();
extern void fuzz_reset(void);
extern void fuzz_reset_jsonb(void);	/* called by it */

/* What the server takes for a text: valid UTF-8 without zero bytes. */
extern bool fuzz_is_text(StrView s);
/* All strings of a value are texts, and its items are in order, each once. */
extern void fuzz_check_value(const ContactValue *v);
/* The items are canonical already, and stored and read they are the same. */
extern void fuzz_check_canonical(const ContactValue *v);
/* jsonb_in: throws on bad input. */
extern Jsonb *fuzz_jsonb(const char *text);
/* Both to stderr, so that a finding can be understood. */
extern void fuzz_show(const char *what, const ContactValue *v);

#endif							/* CONTACTSYNC_FUZZ_H */
