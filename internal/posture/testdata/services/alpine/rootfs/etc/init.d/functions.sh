# not a service
