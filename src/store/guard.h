/*
 * guard.h
 *		The one door through which a caller reaches tables it may not touch.
 *
 * Public functions that need the owner's rights are invoker C functions: under
 * the caller's own rights they determine the tenant (42501 if it is not the
 * caller's), then pin it, switch to contactsync_owner and set every setting
 * that could change the meaning of SQL text or of a value's text form.  Row
 * security holds inside too: contactsync_owner owns the tables under FORCE ROW
 * LEVEL SECURITY, and current_tenant() answers it with the pin.
 *
 * A function declared AS 'guard_call' needs no C of its own: it enters the
 * guard and calls the function of the same name with a leading underscore and
 * the same argument types, which only the owner may execute.
 */
#ifndef CONTACTSYNC_GUARD_H
#define CONTACTSYNC_GUARD_H

#include "fmgr.h"

typedef struct Guard
{
	Oid			save_userid;
	int			save_sec_context;
	int			nestlevel;
	char	   *save_pin;
	Oid			save_caller;
} Guard;

extern void guard_init(void);

/*
 * Enter the guard.  tenant NULL means the caller's current tenant; naming one
 * is for the worker alone, which has no tenant of its own.  Leave in
 * PG_FINALLY: an error unwinds user and settings by itself, but not the pin.
 */
extern void guard_enter(Guard *guard, const char *tenant);
extern void guard_leave(Guard *guard);

/* In a parallel worker of a process that is inside the guard: be inside, too. */
extern void guard_join(const char *tenant, Oid caller);

/* The active tenant: the pin inside the guard, else the setting if allowed. */
extern const char *guard_current_tenant(void);

/* The user who entered the outermost guard, or the current one outside. */
extern Oid	guard_caller(void);
extern Oid	guard_owner(void);	/* contactsync_owner */
extern Oid	guard_worker(void); /* contactsync_worker */

/*
 * Take the tenant's exclusive lock until the end of the transaction, and
 * advance its generation, which gives 40001 to a caller whose snapshot is
 * older than the tenant's state.  Only inside the guard.
 */
extern void guard_lock_tenant(void);

/* Error 55000 where the database is a dormant copy (see activate()). */
extern void guard_require_active(void);

#endif							/* CONTACTSYNC_GUARD_H */
