/*
 * extension.h
 *		Whether the SQL side of retry is in this database, and which version.
 *
 * The library and the extension's objects are updated at different moments:
 * a package upgrade replaces the one, ALTER EXTENSION the other.
 */
#ifndef RETRY_EXTENSION_H
#define RETRY_EXTENSION_H

/*
 * The version of the extension in the current database, palloc'd; NULL when it
 * is not there.  Needs a transaction.
 */
extern char *retry_extension_version(void);

#endif							/* RETRY_EXTENSION_H */
