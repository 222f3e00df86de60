# Servers of others, for tests: a CRM (test/sandbox/crm.py) and CardDAV servers.
package Peers;
use strict;
use warnings;
use Exporter 'import';
use File::Spec;
use FindBin;
use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use MIME::Base64;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

our @EXPORT = qw(spew peers_node set_timeout set_retries start_radicale dav card start_providers control start_proxy proxy start_peers peer scim start_xandikos start_stand_in rule);

# Replace a file at once.
sub spew
{
	my ($file, $text) = @_;
	open my $f, '>', "$file.new" or die "$file: $!";
	print $f $text;
	close $f;
	rename "$file.new", $file or die $!;
}

# How long the worker waits for an answer from now on: no longer than a test needs,
# and long enough for a busy machine.
sub set_timeout
{
	my ($node, $seconds) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET contactsync.http_timeout = $seconds");
	$node->reload;
	$node->poll_query_until('postgres', "SELECT current_setting('contactsync.http_timeout')::interval = interval '$seconds s'") or die;
}

# How often the worker repeats a request.
sub set_retries
{
	my ($node, $n) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET contactsync.http_retries = $n");
	$node->reload;
	$node->poll_query_until('postgres', "SELECT current_setting('contactsync.http_retries') = '$n'") or die;
}

# A server with the worker, a folder for secrets and what a test of sources needs besides; (node, folder).
# The key file seals secrets; more are lines of postgresql.conf.
sub peers_node
{
	my ($name, @more) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $dir = File::Spec->rel2abs($node->basedir . '/secrets');
	mkdir $dir or die $!;
	spew("$dir/key", ('ab' x 32) . "\n");
	$node->init;
	$node->append_conf('postgresql.conf', join("\n", "shared_preload_libraries = 'contactsync'", "contactsync.secret_key_file = '$dir/key'",
		"contactsync.secret_directory = '$dir'", 'contactsync.http_timeout = 60', 'contactsync.http_retries = 0', 'autovacuum = off',
		'restart_after_crash = on', @more, ''));
	$node->start;
	return ($node, $dir);
}

# A server of test/sandbox, with its arguments between the port file and our pid; (handle, port).
sub start_server
{
	my ($script, $port_file, @more) = @_;
	my $handle = IPC::Run::start([ '/usr/bin/python3', '-B', "$FindBin::Bin/../sandbox/$script", $port_file, $$, @more ]);
	for (1 .. 1500) { last if -e $port_file; usleep(20_000) }
	return ($handle, PostgreSQL::Test::Utils::slurp_file($port_file));
}

my $tiny = HTTP::Tiny->new(timeout => 60);
sub rule
{
	my ($port, %what) = @_;
	my $r = $tiny->post("http://127.0.0.1:$port/control", { content => encode_json(\%what) });
	die "control: $r->{status}" if $r->{status} != 200;
	return decode_json($r->{content});
}

# The emulated providers (test/sandbox/providers.py); (handle, port).
my $providers;
sub start_providers
{
	my ($dir) = @_;
	(my $handle, $providers) = start_server('providers.py', "$dir/port");
	return ($handle, $providers);
}

# Rule them: see providers.py.
sub control { return rule($providers, @_) }

# A proxy in front of a CardDAV server (test/sandbox/proxy.py); (handle, URL).
my $proxy;
sub start_proxy
{
	my ($dir, $upstream) = @_;
	(my $handle, $proxy) = start_server('proxy.py', "$dir/proxy", $upstream);
	return ($handle, "http://127.0.0.1:$proxy");
}

# Rule it: see proxy.py.
sub proxy { return rule($proxy, @_) }

# Servers from npm (test/peers/server.mjs), of the versions of its package-lock.json.
my $peers;
sub install_peers
{
	my $home = "$FindBin::Bin/../peers";
	my $versions = PostgreSQL::Test::Utils::slurp_file("$home/package-lock.json");
	my $installed = "$home/node_modules/.installed";
	return if -e $installed && PostgreSQL::Test::Utils::slurp_file($installed) eq $versions;
	my $authorities = '/etc/ssl/certs/ca-certificates.crt';
	# npm knows authorities of its own; one that this machine trusts may stand before the registry
	local $ENV{NODE_EXTRA_CA_CERTS} = $authorities if !$ENV{NODE_EXTRA_CA_CERTS} && -e $authorities;
	my $output = '';
	IPC::Run::run([ 'npm', 'ci', '--ignore-scripts', '--no-audit', '--no-fund', '--no-update-notifier', '--fetch-retry-mintimeout=1000',
			'--cache', PostgreSQL::Test::Utils::tempdir() . '/npm' ], '<', \undef, '>', \$output, '2>&1', init => sub { chdir $home or die "$home: $!" })
		or die "the servers that these tests talk to could not be installed from the npm registry:\n$output";
	spew($installed, $versions);
}

# (handle, port)
sub start_peers
{
	my ($dir) = @_;
	install_peers();
	my $handle = IPC::Run::start([ 'node', "$FindBin::Bin/../peers/server.mjs", "$dir/peers", $$ ], '<', \undef, '>', "$dir/peers.log", '2>&1');
	for (1 .. 1500) { last if -e "$dir/peers"; usleep(20_000) }
	-e "$dir/peers" or die 'the servers do not start: ' . PostgreSQL::Test::Utils::slurp_file("$dir/peers.log");
	$peers = PostgreSQL::Test::Utils::slurp_file("$dir/peers");
	return ($handle, $peers);
}

# Rule them: see server.mjs.
sub peer { return rule($peers, @_) }

# A request to the SCIM server, as somebody else than contactsync; (status, answer).
sub scim
{
	my ($method, $path, $body) = @_;
	my $r = $tiny->request($method, "http://127.0.0.1:$peers/scim$path",
		{ content => $body ? encode_json($body) : '', headers => { Authorization => 'Bearer static token', 'Content-Type' => 'application/scim+json' } });
	return ($r->{status}, $r->{content} ? decode_json($r->{content}) : undef);
}

sub wait_for_server
{
	my ($url) = @_;
	for (1 .. 500)
	{
		return if HTTP::Tiny->new(timeout => 2)->get($url)->{status} != 599;
		usleep(20_000);
	}
	die "no server at $url";
}

# Radicale in a folder, for the user ann with the password pw; (handle, URL).
sub start_radicale
{
	my ($dir) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	mkdir $dir;
	spew("$dir/users", "ann:pw\n");
	spew("$dir/config", qq{[server]\nhosts = 127.0.0.1:$port\n[auth]\ntype = htpasswd\nhtpasswd_filename = $dir/users\nhtpasswd_encryption = plain\n}
		. qq{delay = 0\n[storage]\nfilesystem_folder = $dir/data\n[logging]\nlevel = warning\n});
	my $log = "$dir/log";
	my $handle = IPC::Run::start([ '/usr/bin/python3', '-m', 'radicale', '-C', "$dir/config" ], '<', \undef, '>', $log, '2>&1');
	wait_for_server("http://127.0.0.1:$port/");
	return ($handle, "http://127.0.0.1:$port");
}

# Xandikos in a folder, which asks nobody who he is; (handle, URL).
sub start_xandikos
{
	my ($dir) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	mkdir $dir;
	my $handle = IPC::Run::start([ '/usr/bin/python3', '-m', 'xandikos.web', '-d', "$dir/data", '--current-user-principal', '/ann/', '--defaults', '-l', '127.0.0.1', '-p', $port ],
		'<', \undef, '>', "$dir/log", '2>&1');
	wait_for_server("http://127.0.0.1:$port/");
	return ($handle, "http://127.0.0.1:$port");
}

# A server that says what it is told to (test/sandbox/stand_in.py); (handle, port).
sub start_stand_in
{
	my ($port_file) = @_;
	return start_server('stand_in.py', $port_file);
}

# A request as the user ann; (status, body, headers).
sub dav
{
	my ($method, $url, $body, %headers) = @_;
	my $r = HTTP::Tiny->new(timeout => 60)->request($method, $url,
		{ content => $body // '', headers => { Authorization => 'Basic ' . encode_base64('ann:pw', ''), 'Content-Type' => 'text/vcard; charset=utf-8', %headers } });
	return wantarray ? ($r->{status}, $r->{content}, $r->{headers}) : $r->{status};
}

# A vCard of a person; more are lines of it.
sub card
{
	my ($id, $first, $last, @more) = @_;
	return join("\r\n", 'BEGIN:VCARD', 'VERSION:3.0', "UID:$id", "N:$last;$first;;;", "FN:$first $last", @more, 'END:VCARD', '');
}

1;
