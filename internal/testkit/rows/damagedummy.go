package rows
import "github.com/snapstore/snapstore/internal/testkit/matrix"
func damageRows() []matrix.Row {return nil}
func indexRows() []matrix.Row {return nil}
func historyRows() []matrix.Row {return nil}
