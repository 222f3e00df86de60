/*
 * secret.h
 *		Credentials of sources: kept sealed, or as references to files.
 *
 * A source's secrets have names ("token", "webhook"); several for one purpose,
 * as while a key is being replaced, are "webhook", "webhook.2" and so on.  They
 * are written by _set_secrets() and read by the functions below, inside the
 * guard only: no role can read the table.
 */
#ifndef CONTACTSYNC_SECRET_H
#define CONTACTSYNC_SECRET_H

/*
 * The plain text of a secret, palloc'd in the caller's context, or NULL where
 * the source has none of that name.  Never empty.  Errors: 55000 where it cannot
 * be opened, class 58 where its file cannot be read.  Opens an SPI connection.
 */
extern char *secret_get(const char *source, const char *name);

/* All secrets called prefix, prefix.2, ... in that order; how many there are. */
extern int	secret_get_all(const char *source, const char *prefix, char ***values);

#endif							/* CONTACTSYNC_SECRET_H */
