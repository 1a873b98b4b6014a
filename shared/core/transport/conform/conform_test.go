package conform

import "testing"

func TestConform(t *testing.T) { Run(t, Subject{Name: InProcess}) }
