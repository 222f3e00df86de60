# Servers of others, for tests: a CRM (test/sandbox/crm.py) and CardDAV servers.
package Peers;
use strict;
use warnings;
use Exporter 'import';
use FindBin;
use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use MIME::Base64;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

our @EXPORT = qw(spew set_timeout set_retries start_radicale dav card start_providers control);

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

# The emulated providers (test/sandbox/providers.py); (handle, port).
my ($providers, $tiny);
sub start_providers
{
	my ($dir) = @_;
	my $handle = IPC::Run::start([ '/usr/bin/python3', '-B', "$FindBin::Bin/../sandbox/providers.py", "$dir/port", $$ ]);
	for (1 .. 500) { last if -e "$dir/port"; usleep(20_000) }
	$providers = PostgreSQL::Test::Utils::slurp_file("$dir/port");
	$tiny = HTTP::Tiny->new(timeout => 60);
	return ($handle, $providers);
}

# Rule them: see providers.py.
sub control
{
	my $r = $tiny->post("http://127.0.0.1:$providers/control", { content => encode_json({@_}) });
	die "control: $r->{status}" if $r->{status} != 200;
	return decode_json($r->{content});
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
