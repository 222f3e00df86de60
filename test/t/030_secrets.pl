# Secrets: sealed under a key or read from files, and of use to nobody else.
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Path qw(make_path);
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('secrets');
my $base = abs_path($node->basedir);
my $dir = "$base/secrets.d";
make_path("$dir/sub", "$base/secrets.dx");


sub write_file
{
	my ($path, $content) = @_;
	open my $f, '>', $path or die "$path: $!";
	binmode $f;
	print $f $content;
	close $f;
}

# HMAC-SHA256 of "Hello, World!", from GitHub's documentation
my $secret = q{It's a Secret to Everybody};
my $mac = 'sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17';
my $key = join '', map { sprintf '%02x', $_ } 1 .. 32;
write_file("$base/key", "$key\n");

$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'contactsync'\ncontactsync.enabled = off");
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE copy; CREATE ROLE tenant_role');
$node->safe_psql('postgres', q{CREATE EXTENSION contactsync; SELECT contactsync.activate();
	INSERT INTO contactsync.tenants (tenant_id, role_name) VALUES ('acme', 'tenant_role')});

# the answer of the check, or the error
sub verify
{
	my ($source, $db) = @_;
	my ($rc, $out, $err) = $node->psql($db // 'postgres', qq{\\set VERBOSITY verbose
SELECT ok, reason FROM contactsync._verify_webhook('$source', 'github', '{"X-Hub-Signature-256": "$mac"}', 'Hello, World!')});
	return $rc == 0 && $err eq '' ? $out : $err;
}

sub set_secrets
{
	my ($source, $json) = @_;
	$json =~ s/'/''/g;
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT contactsync._set_secrets('$source', '$json')");
	return $err;
}

sub configure
{
	my (%set) = @_;
	$node->append_conf('postgresql.conf', "contactsync.$_ = '$set{$_}'") for sort keys %set;
	$node->reload;
	for my $name (keys %set)
	{
		$node->poll_query_until('postgres', "SELECT current_setting('contactsync.$name') = '$set{$name}'")
			or die "$name was not set";
	}
}

# nothing is configured
like(set_secrets('s', qq({"webhook": "$secret"})), qr/ERROR:  55000: there is no key/, 'no literal without a key');
like(set_secrets('s', qq({"webhook": {"file": "$dir/a"}})), qr/ERROR:  55000/, 'no file without a directory');
is(verify('s'), 'f|no secret', 'no secret');

# sealed
configure(secret_key_file => "$base/key", secret_directory => $dir);
is(set_secrets('s', qq({"webhook": "$secret"})), '', 'a literal is sealed');
is(verify('s'), 't|', 'and opened');
my $sealed = $node->safe_psql('postgres', 'SELECT sealed FROM contactsync.source_secrets');
is(set_secrets('s', qq({"webhook": "$secret"})), '', 'the same again');
isnt($node->safe_psql('postgres', 'SELECT sealed FROM contactsync.source_secrets'), $sealed, 'looks different each time');
$node->restart;
is(verify('s'), 't|', 'it survives a restart');

my $hint = qr/ERROR:  55000: could not open secret "webhook" of source/;
write_file("$base/key", 'f' x 64);
like(verify('s'), $hint, 'another key does not open it');
for my $bad ('', 'f' x 63, 'g' x 64, 'f' x 65, "f" x 200, "\0" x 64)
{
	write_file("$base/key", $bad);
	like(verify('s'), qr/ERROR:  55000: the file of contactsync.secret_key_file holds no key/, 'no key: ' . length $bad);
}
unlink "$base/key";
like(verify('s'), qr/ERROR:  58P01: could not read the file of contactsync.secret_key_file/, 'no key file');
write_file("$base/key", uc $key);
is(verify('s'), 't|', 'the key in upper case is the key');

# every byte counts, and so does the place
my $len = $node->safe_psql('postgres', 'SELECT octet_length(sealed) FROM contactsync.source_secrets');
is($len, 1 + 12 + 16 + length $secret, 'length of a sealed secret');
my $opened = 0;
for my $i (0 .. $len - 1)
{
	my ($rc, $out, $err) = $node->psql('postgres', qq{BEGIN;
		UPDATE contactsync.source_secrets SET sealed = set_byte(sealed, $i, get_byte(sealed, $i) # 1);
		SELECT contactsync._verify_webhook('s', 'github', '{}', '')});
	$opened++ unless $err =~ /could not open secret/;
}
is($opened, 0, 'no changed byte goes unnoticed');
for my $change (q{sealed = substr(sealed, 1, 29)}, q{sealed = ''}, q{sealed = sealed || 'x'}, q{source = 't'}, q{name = 'webhook.2'}, q{tenant_id = 'acme'})
{
	my ($rc, $out, $err) = $node->psql('postgres', qq{BEGIN;
		UPDATE contactsync.source_secrets SET $change;
		SELECT set_config('contactsync.tenant', tenant_id, true) FROM contactsync.source_secrets;
		SELECT contactsync._verify_webhook(source, 'github', '{}', '') FROM contactsync.source_secrets});
	like($err, qr/could not open secret/, "refused after $change");
}

# neither dump nor log shows it
my ($dump) = run_command([ 'pg_dump', '-d', $node->connstr('postgres') ]);
like($dump, qr/COPY contactsync.source_secrets/, 'secrets are dumped');
unlike($dump, qr/Secret to Everybody/, 'but not in clear');
unlike($dump, qr/@{[unpack 'H*', $secret]}/, 'nor in hex');
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$base/d", '-d', $node->connstr('postgres') ], 'dump');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('copy'), "$base/d" ], 'restore');
is(verify('s', 'copy'), 't|', 'restored, they open under the same key');

# files
write_file("$dir/plain", "$secret\n");
write_file("$dir/sub/raw", $secret);
write_file("$dir/two", "$secret\n\n");
write_file("$dir/empty", "\n");
write_file("$dir/binary", "a\0b");
write_file("$dir/large", 'x' x 65537);
write_file("$base/outside", $secret);
write_file("$base/secrets.dx/near", $secret);
symlink "$dir/sub/raw", "$dir/inner";
symlink "$base/outside", "$dir/outer";
symlink $base, "$dir/up";
symlink "$dir/loop", "$dir/loop";
POSIX::mkfifo("$dir/fifo", 0600);
for my $good (qw(plain sub/raw inner ./plain sub//raw))
{
	is(set_secrets('s', qq({"webhook": {"file": "$dir/$good"}})), '', "$good is taken");
	is(verify('s'), 't|', "$good is read");
}
for my $bad ("$base/outside", "$base/secrets.dx/near", "$dir/../outside", "$dir/sub/../plain", $dir, "$dir/", 'plain', '', "$dir/" . 'x' x 2000)
{
	like(set_secrets('s', qq({"webhook": {"file": "$bad"}})), qr/ERROR:  22023: the file of secret "webhook" is not below/,
		'not below the directory: ' . substr $bad, 0, 100);
}
is(verify('s'), 't|', 'what was refused changes nothing');
my %unread = (
	outer => qr/55000: .* is not below/,
	'up/outside' => qr/55000: .* is not below/,
	missing => qr/58P01/,
	sub => qr/ERROR/,
	loop => qr/ERROR/,
	fifo => qr/ERROR/,
	empty => qr/55000: .* holds no text/,
	binary => qr/55000: .* holds no text/,
	large => qr/54000: .* is too large/);
for my $bad (sort keys %unread)
{
	is(set_secrets('s', qq({"webhook": {"file": "$dir/$bad"}})), '', "$bad is taken");
	like(verify('s'), $unread{$bad}, "$bad is not read");
}
is(set_secrets('s', qq({"webhook": {"file": "$dir/two"}})), '', 'two line ends');
is(verify('s'), 'f|bad signature', 'only one is stripped');
write_file("$dir/two", "$secret\r\n");
is(verify('s'), 't|', 'a file that is replaced takes effect at once');

# tenants do not get at each other's
$node->safe_psql('postgres', q{INSERT INTO contactsync.tenants (tenant_id) VALUES ('acm'), ('.'), ('..'), ('acme/..')});
mkdir "$dir/tenants";
for my $tenant ('acme', 'umbra')
{
	mkdir "$dir/tenants/$tenant";
	write_file("$dir/tenants/$tenant/key", $secret);
}
symlink "$dir/plain", "$dir/tenants/acme/outer";
symlink "$dir/tenants/umbra/key", "$dir/tenants/acme/other";
symlink "$dir/tenants/acme/key", "$dir/into";

sub as_tenant
{
	my ($tenant, $path) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', qq{\\set VERBOSITY verbose
SET contactsync.tenant = '$tenant'; BEGIN;
SELECT contactsync._set_secrets('v', '{"webhook": {"file": "$dir/$path"}}');
SELECT contactsync._verify_webhook('v', 'github', '{"X-Hub-Signature-256": "$mac"}', 'Hello, World!')});
	return $err;
}
is(as_tenant('acme', 'tenants/acme/key'), '', 'a tenant reads a file of its own');
is(as_tenant('default', 'plain'), '', 'and so does the tenant default');
like(as_tenant(@$_), qr/ERROR:  22023: .* this tenant's may lie/, "no secret of tenant $_->[0]: $_->[1]")
	foreach [ 'acme', 'plain' ], [ 'acme', 'tenants/umbra/key' ], [ 'acme', 'tenants/acme' ], [ 'acm', 'tenants/acme/key' ],
	[ 'default', 'tenants/acme/key' ], [ '.', 'tenants/acme/key' ], [ '..', 'plain' ], [ 'acme/..', 'tenants/acme/../umbra/key' ];
like(as_tenant(@$_), qr/ERROR:  55000: .* this tenant's may lie/, "a link leads tenant $_->[0] nowhere: $_->[1]")
	foreach [ 'acme', 'tenants/acme/outer' ], [ 'acme', 'tenants/acme/other' ], [ 'default', 'into' ];

# several, more than nine
is(set_secrets('s', '{"webhook": [' . join(', ', ('"no"') x 11) . qq(, {"file": "$dir/plain"}], "webhooks": "x"})), '', 'an array');
is(verify('s'), 't|', 'any of them counts');
is($node->safe_psql('postgres', q{SELECT string_agg(name, ' ' ORDER BY length(name), name) FROM contactsync.source_secrets WHERE name > 'webhook.2'}),
	'webhooks ' . join(' ', map { "webhook.$_" } 3 .. 9), 'they are numbered');

# a value never gets into a message, whatever is wrong
for my $json ('{"webhook": ["hush", 5]}', '{"hush hush": "hush"}', '{"webhook": {"hush": "hush"}}', '["hush"]', '{"webhook": "' . 'hush' x 20000 . '"}')
{
	my $err = set_secrets('s', $json);
	like($err, qr/ERROR:  22023/, 'refused');
	unlike($err =~ s/^LINE.*//msr, qr/hush/, 'and not shown');
}
$node->stop;
done_testing();
